"""The numbers the model stands on, each declared once: measured, published, priced or assumed.

A measured fact names the command that made it, run on two CPU cores and 24 GiB; its reading is in
benchmarks/README.md. An assumed one says what it rests on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """A number, its unit, and where it comes from."""

    value: float
    unit: str
    source: str


PREPARE_START = Fact(3.7, "s", "python -m benchmarks.prepare_growth")
PREPARE_ROW = Fact(2.07e-6, "core s a row", "python -m benchmarks.prepare_growth")
PREPARE_ITEM = Fact(160e-6, "core s an item", "docs/cost-model.md: 1,600 s to clean, tokenise 10M")
_SERVE = "python -m benchmarks.serve_vs_fastapi --output outputs/demo --seconds 8"
SERVE_ALONE = Fact(5.0, "CPU ms a request", f"{_SERVE}: 1 client, so batches of 1")
SERVE_FULL = Fact(1.7, "CPU ms a request", f"{_SERVE}: 64 clients, so batches of 32")
_TOPK = "python -m benchmarks.topk: 1M x 128, top 100, one thread"
EXACT_ALONE = Fact(21.2, "ms for 1 query", _TOPK)
EXACT_FULL = Fact(161.0, "ms for 32 queries", _TOPK)
IVF_ALONE = Fact(1.6, "ms for 1 query", _TOPK)
IVF_FULL = Fact(17.0, "ms for 32 queries", _TOPK)
SEARCHED_ITEMS = Fact(1_000_000, "items", _TOPK)
MEASURED_BATCH = Fact(32, "requests", "serve_configs/toy.yaml, max_batch_size")

TRAINING_MFU = Fact(
    0.30, "of dense bf16 peak", "assumed: OneRec .237 (arXiv 2506.13695), MPT-1B .418 (LLM Foundry)"
)
INFERENCE_MFU = Fact(0.288, "of dense peak", "OneRec, arXiv 2506.13695, abstract")
RECOMPUTE = Fact(4 / 3, "times the time", "one more forward pass of three (docs/training.md)")
STEP_LEAST = Fact(
    0.010, "s a step", "assumed: launches, the exchange of gradients, the host's part"
)
FIT_SHARE = Fact(0.9, "of a GPU's memory", "assumed: the rest is the framework's and fragments")
VCPUS_A_CORE = Fact(2, "vCPUs", "docs/cost-model.md: a vCPU does .6 of a core, 15% is lost")
UTILISATION = Fact(0.8, "of what a replica can answer", "assumed; above it waits grow fast")
SPREAD = Fact(0.35, "standard deviation over mean", f"{_SERVE}: makes the p99 at 16 clients")
TROUGH = Fact(0.3, "of the peak", "assumed: the least hour of a consumer service")
MEAN_SHARE = Fact(0.65, "of the peak", "mean of a cosine between trough and peak")

EVENT_RAW = Fact(11, "bytes", "docs/cost-model.md: Parquet, ids of 7 letters")
EVENT_STORED = Fact(
    300, "bytes", "assumed: 75 of number and JSON, the id again, Redis' own 64 each"
)
ITEM_TEXT = Fact(400, "bytes", "assumed: title and attributes, compressed")
SHOWN_ITEM = Fact(12, "bytes", "assumed: one item of an exposure in Parquet")
STORE_SHARE = Fact(0.7, "of a node's memory", "assumed: the rest is for a snapshot's copies")
REPLICA_OWN = Fact(1.0, "GiB", "assumed: Python, torch and Ray of one replica")

NODE_VCPUS = Fact(16, "vCPUs", "AWS m7i.4xlarge")
NODE_MEMORY = Fact(64, "GiB", "AWS m7i.4xlarge")
NODE_HOUR = Fact(0.81, "USD an hour", "AWS m7i.4xlarge, on demand, us-east-1; put yours in")
S3_MONTH = Fact(0.023, "USD a GB and month", "AWS S3 Standard, first 50 TB; put yours in")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card: memory in GiB, USD an hour. Its peak is in `recsys.training.speed.PEAK_FLOPS`."""

    memory_gib: float
    hour_usd: float
    source: str


_PRICES = "https://alpha-one-index.github.io/ai-infra-index/specs/inference-benchmarks.html"
GPUS = {
    "A100": Gpu(80, 1.79, f"Lambda, {_PRICES}"),
    "H100": Gpu(80, 3.93, f"AWS P5, {_PRICES}; lists of other dates say 2.65 to 12.29"),
    "H200": Gpu(141, 3.29, f"Lambda, {_PRICES}"),
}

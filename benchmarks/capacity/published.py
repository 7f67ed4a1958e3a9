"""The model against systems whose figures are published: both, and the factor between them.

    python -m benchmarks.capacity.published

A factor above 1 says that the model promises more than was reached (fewer GPU hours, more
requests), below 1 that it promises less.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.capacity.architectures import MODELS, Architecture
from benchmarks.capacity.facts import INFERENCE_MFU, RECOMPUTE, TRAINING_MFU
from recsys.training.speed import PEAK_FLOPS

HLLM_TOKENS = 128
"""Tokens of an item. Assumed: half of the 256 that HLLM cuts texts at; what they are on average is
not published."""
HLLM_EPOCHS = 5
H100_INT8 = 1_979e12
"""Dense int8 operations a second (NVIDIA H100 data sheet)."""
MI355X_BF16 = 2_500e12
"""Dense bf16 operations a second (AMD MI355X data sheet)."""
DLRM_V2_FLOPS, DLRM_V3_FLOPS = 40e6, 260e9
"""Operations of a candidate (mlcommons.org/2026/02/dlrmv3-inference-meta). For DLRMv3 taken as
those of a whole request: times its candidates no machine would reach the rate below."""
DLRM_V2_PAIRS = 270
"""Pairs of user and item in a sample of DLRMv2. Assumed: its README says 100 to 700."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure and the model's."""

    system: str
    what: str
    unit: str
    published: float
    modelled: float
    lower_is_better: bool
    source: str

    @property
    def factor(self) -> float:
        """How much more the model promises than was reached."""
        ratio = self.modelled / self.published
        return 1 / ratio if self.lower_is_better else ratio


@dataclass(frozen=True, slots=True)
class HllmRun:
    """A run of HLLM: both of its language models have the same sizes and learn in full."""

    model: str
    sequences: float
    length: int
    negatives: float
    recomputes: bool
    gpu: str

    @property
    def gpu_hours(self) -> float:
        """Every place of a sequence and every negative is encoded, whether seen before or not."""
        sizes: Architecture = MODELS[self.model]
        texts = self.length + self.negatives
        read = texts * HLLM_TOKENS * sizes.flops_a_token(HLLM_TOKENS, "full")
        read += self.length * sizes.flops_a_token(self.length, "full")
        flops = HLLM_EPOCHS * self.sequences * read * (RECOMPUTE.value if self.recomputes else 1.0)
        return flops / (PEAK_FLOPS[self.gpu] * TRAINING_MFU.value) / 3_600


BOOKS_USERS = 694_898
PIXEL8M_SEQUENCES = (158_488_652 - 2 * 8_886_078) / 11
"""Events but each user's last two, in sequences of 11 (`_build_seq` of HLLM's dataload.py)."""
HLLM = {
    "Pixel8M 1B, 32 A100 x 4.1 days": (
        HllmRun("tinyllama-1.1b", PIXEL8M_SEQUENCES, 11, 11, False, "A100"),
        32 * 4.1 * 24,
        "HLLM-Pixel.sh",
    ),
    "Books 1B, 28,672 negatives, 128 A100 x 0.5 days": (
        HllmRun("tinyllama-1.1b", BOOKS_USERS, 56, 56, True, "A100"),
        128 * 0.5 * 24,
        "HLLM-Books-neg28k.sh",
    ),
    "Books 7B, 28,672 negatives, 128 A100 x 2 days": (
        HllmRun("baichuan2-7b", BOOKS_USERS, 56, 56, True, "A100"),
        128 * 2.0 * 24,
        "HLLM-Books-neg28k.sh",
    ),
    "Books 1B, 512 negatives, 16 H100 x 2 days": (
        HllmRun("tinyllama-1.1b", BOOKS_USERS, 51, 4, True, "H100"),
        16 * 2.0 * 24,
        "HLLM-Books-neg512.sh",
    ),
}
"""Runs as github.com/bytedance/HLLM/tree/main/reproduce has them, with the time it tells."""


def comparisons() -> list[Comparison]:
    """HLLM's training, OneRec's shares and MLPerf's recommenders."""
    return [*_hllm(), *_onerec(), *_mlperf()]


def _hllm() -> list[Comparison]:
    place = "arXiv 2409.12740, github.com/bytedance/HLLM reproduce/"
    return [
        Comparison("HLLM", what, "GPU h", hours, run.gpu_hours, True, place + script)
        for what, (run, hours, script) in HLLM.items()
    ]


def _onerec() -> list[Comparison]:
    """OneRec tells no operations a request that could be read, so only its shares are held."""
    first, second = "arXiv 2506.13695, abstract", "arXiv 2508.20900, abstract"
    less = "V2's training resources of V1's, at .06 of the operations"
    return [
        Comparison("OneRec", "MFU of training", "share", 0.237, TRAINING_MFU.value, False, first),
        Comparison("OneRec", less, "share", 0.10, 0.06, True, second),
    ]


def _mlperf() -> list[Comparison]:
    mfu = INFERENCE_MFU.value
    v2 = 8 * H100_INT8 * mfu / (DLRM_V2_FLOPS * DLRM_V2_PAIRS)
    v3 = 8 * MI355X_BF16 * mfu / DLRM_V3_FLOPS
    results = "github.com/mlcommons/inference_results_"
    nvidia = f"{results}v4.1 closed/NVIDIA, DGX-H100 dlrm-v2-99, Offline"
    amd = f"{results}v6.1 closed/AMD/documentation/dlrm-v3 (q12,200)"
    return [
        Comparison("MLPerf DLRMv2", "8 H100, offline", "samples/s", 595_658, v2, False, nvidia),
        Comparison("MLPerf DLRMv3", "8 MI355X, server", "queries/s", 12_200, v3, False, amd),
    ]


def main() -> None:
    """Print the table, and one JSON object."""
    found = comparisons()
    table = Table("system", "what", "published", "model", "unit", "factor")
    for one in found:
        figures = (f"{one.published:,.3g}", f"{one.modelled:,.3g}")
        table.add_row(one.system, one.what, *figures, one.unit, f"{one.factor:.2f}")
    Console(width=110).print(table)
    rows = [asdict(one) | {"factor": round(one.factor, 3)} for one in found]
    print(json.dumps({"benchmark": "capacity.published", "rows": rows}))


if __name__ == "__main__":
    main()

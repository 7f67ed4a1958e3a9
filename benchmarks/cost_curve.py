"""What quality costs: language models of other sizes, other widths, frozen and tuned, as a picture.

    python -m benchmarks.cost_curve --config ray_jobs/configs/<name>.toml --data <dir> --output <o>

Smaller language models are the first layers of the config's own. What an epoch costs is told by the
training log: its steps' CPU seconds without validation and checkpoints. Peer: the cheapest variant.
The ratio is NDCG@10 on the test rows; nothing is chosen by it.
"""

from __future__ import annotations

import io
import json
import statistics
from dataclasses import dataclass
from typing import Any

import tyro
from matplotlib.figure import Figure
from transformers import AutoModel, AutoTokenizer

from benchmarks.seeds import METRIC, run_pipeline
from recsys.artifact import open_artifact
from recsys.config import load_config
from recsys.models.build import LOG
from recsys.pretrained import resolve_backbone
from recsys.schema import TRAIN_COUNT
from recsys.storage import write_bytes

SAMPLED = ("--training.num-negatives", "256")
"""A tuned language model reads the items of a step, and cannot read the catalogue in each."""
TUNED = {"lora": ("--model.tuning", "lora"), "full": ("--model.tuning", "full")}
WIDTHS, LAYERS = (32, 64, 256), (1, 3)
PARTS = ("data_ms", "encode_ms", "loss_ms", "backward_ms", "optimizer_ms")
WIDTH_FLAG, LAYERS_FLAG = "--model.embedding-size", "--model.backbone"


@dataclass(frozen=True)
class Arguments:
    """What is run."""

    config: str
    """TOML file of the run."""
    data: str
    """Directory with the raw data."""
    output: str
    """Directory with a folder a variant."""
    tuned_epochs: int = 0
    """Epochs of variants that tune the language model; 0 leaves them out, as they take hours."""


def main(arguments: Arguments) -> None:
    """Run every variant, print a line each, draw them, and print the ratio last."""
    found = {name: _run(arguments, name, flags) for name, flags in _variants(arguments).items()}
    cheapest = min(found, key=lambda name: found[name]["seconds"])
    best = max(found, key=lambda name: found[name][METRIC])
    write_bytes(f"{arguments.output}/cost_curve.svg", draw(found))
    result = {
        "benchmark": "cost_curve",
        "peer": cheapest,
        "ratio": round(found[best][METRIC] / found[cheapest][METRIC], 3),
        "target": 1.0,
        "higher_is_better": True,
        "detail": found,
    }
    print(json.dumps(result))


def _variants(arguments: Arguments) -> dict[str, tuple[str, ...]]:
    """Flags by name."""
    backbone = load_config(arguments.config).model.backbone
    found: dict[str, tuple[str, ...]] = {"as configured": ()}
    found |= {f"width {width}": (WIDTH_FLAG, str(width)) for width in WIDTHS}
    for layers in LAYERS:
        smaller = _first_layers(backbone, layers, f"{arguments.output}/{layers}_layers")
        found[f"{layers} layer(s)"] = (LAYERS_FLAG, smaller)
    epochs = ("--training.epochs", str(arguments.tuned_epochs))
    tuned = TUNED if arguments.tuned_epochs else {}
    return found | {name: (*flags, *SAMPLED, *epochs) for name, flags in tuned.items()}


def _first_layers(backbone: str, count: int, folder: str) -> str:
    """A language model of the first layers alone, in `folder`."""
    source = resolve_backbone(backbone)
    model = AutoModel.from_pretrained(source, num_hidden_layers=count)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def _run(arguments: Arguments, name: str, flags: tuple[str, ...]) -> dict[str, Any]:
    """Quality of a variant, and what its training took."""
    place = f"{arguments.output}/{name.replace(' ', '_').replace('(s)', 's')}"
    shared = {"dataset": f"{arguments.output}/as_configured/dataset"}
    if name == "as configured" or LAYERS_FLAG in flags:
        shared = {}
    run = ("--config", arguments.config, "--data", arguments.data, *flags)
    report = run_pipeline(place, shared, *run, "--evaluation.baselines")
    found = {METRIC: report["models"]["model"]["all"][METRIC], **_costs(place)}
    print(
        f"{name:16}" + "".join(f"  {key} {value:.4g}" for key, value in found.items()), flush=True
    )
    return found


def _costs(place: str) -> dict[str, float]:
    """Seconds of steps in all and of an epoch, encodes of an epoch, and peak memory of a rank."""
    log = open_artifact(f"{place}/checkpoint", "checkpoint").read_json(LOG)
    steps = [row for row in log if "loss" in row]
    epochs = 1 + max(row["epoch"] for row in steps)
    a_step = statistics.median(sum(row[part] for part in PARTS) for row in steps) / 1e3
    steps_an_epoch = steps[-1]["step"] / epochs
    encoded = statistics.mean(row["items_encoded"] for row in steps)
    return {
        "seconds": a_step * steps[-1]["step"],
        "seconds_an_epoch": a_step * steps_an_epoch,
        "encodes_an_epoch": encoded * steps_an_epoch,
        "occurrences_an_epoch": _occurrences(place),
        "memory_gb": max(row["memory_gb"] for row in steps),
    }


def _occurrences(place: str) -> float:
    """Events of the training windows: what would be encoded an epoch if each stood for itself."""
    dataset = open_artifact(f"{place}/dataset", "dataset")
    counts = dataset.read_table("items.parquet", [TRAIN_COUNT])[TRAIN_COUNT]
    return float(counts.to_numpy().sum())


def draw(found: dict[str, dict[str, float]]) -> bytes:
    """NDCG@10 over the seconds that training took, as SVG on white."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in found.items():
        axes.plot(values["seconds"], values[METRIC], "o", color="#1565c0")
        axes.annotate(name, (values["seconds"], values[METRIC]), (4, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="seconds of training steps, a rank", ylabel=f"test {METRIC}")
    axes.grid(alpha=0.3)
    target = io.BytesIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

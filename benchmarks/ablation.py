"""What each part of the model brings: the pipeline without it, on the same rows.

    python -m benchmarks.ablation --config ray_jobs/configs/<name>.toml --data <dir> --output <dir>

Nothing is chosen by what comes out. Peer: the model without its text and its memory (`IDs alone`),
the collaborative part that any recommender has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import tyro

from benchmarks.seeds import METRIC, SHOWN, run_pipeline

MEMORY = ("--index.transitions", "0")
VARIANTS: dict[str, tuple[str, ...]] = {
    "the model": (),
    "without rules of text": ("--index.alike", "0"),
    "without any memory": MEMORY,
    "without memory, text alone": ("--model.item-features", "text", *MEMORY),
    "IDs alone": ("--model.item-features", "id", *MEMORY),
    "with time gaps": ("--model.use-time",),
    "with 512 sampled negatives": ("--training.num-negatives", "512"),
    "text not whitened": ("--model.no-whiten",),
}
"""Flags of each variant. Those of the index alone share the model's checkpoint."""
PEER = "IDs alone"


@dataclass(frozen=True)
class Arguments:
    """What is run."""

    config: str
    """TOML file of the run."""
    data: str
    """Directory with the raw data."""
    output: str
    """Directory with a folder a variant."""


def main(arguments: Arguments) -> None:
    """Run every variant, print a line each, and the ratio last."""
    found = {}
    for name, flags in VARIANTS.items():
        place, shared = _places(arguments.output, name, flags)
        run = ("--config", arguments.config, "--data", arguments.data)
        report = run_pipeline(place, shared, *run, *flags, "--evaluation.baselines")
        found[name] = report["models"]["model"]
        cells = [found[name].get(segment, {}).get(metric, 0.0) for segment, metric in SHOWN]
        print(f"{name:28}" + "".join(f"{cell:9.4f}" for cell in cells), flush=True)
    scores = {name: segments["all"][METRIC] for name, segments in found.items()}
    result = {
        "benchmark": "ablation",
        "peer": PEER,
        "ratio": round(scores["the model"] / scores[PEER], 3),
        "target": 1.1,
        "higher_is_better": True,
        "detail": scores,
    }
    print(json.dumps(result))


def _places(output: str, name: str, flags: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Where a variant is, and the artifacts it takes from the model's folder."""
    first, *_ = VARIANTS
    of_index = not any(flag.startswith(("--model", "--training")) for flag in flags)
    kinds = ("dataset", "checkpoint") if of_index else ("dataset",)
    folder = f"{output}/{name.replace(' ', '_').replace(',', '')}"
    model = f"{output}/{first.replace(' ', '_')}"
    return folder, {} if name == first else {kind: f"{model}/{kind}" for kind in kinds}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

"""The pipeline over several seeds: mean and spread of the model and what it is compared with.

    python -m benchmarks.seeds --config ray_jobs/configs/<name>.toml --data <dir> --output <dir>

The dataset is made once; training, index and report are those of `ray_jobs.pipeline`, each seed in
a folder of its own, so that an interrupted run goes on where it was. Peer: the strongest of the
baselines by mean NDCG@10. The ratio is that of the means.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

METRIC = "ndcg@10"
SHOWN = (("all", METRIC), ("all", "recall@10"), ("items:head", METRIC), ("items:tail", METRIC))
SHOWN += (("items:tail", "recall@10"), ("items:cold", "recall@10"))


@dataclass(frozen=True)
class Arguments:
    """What is run."""

    config: str
    """TOML file of the run."""
    data: str
    """Directory with the raw data."""
    output: str
    """Directory with a folder a seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training."""
    baselines: tuple[str, ...] = ("id_only", "sasrec")
    """What each seed is compared with, beside what the model is."""


def main(arguments: Arguments) -> None:
    """Run every seed, print mean and standard deviation, and the ratio last."""
    reports = [_report(arguments, seed) for seed in arguments.seeds]
    names = list(reports[0]["models"])
    for name in names:
        cells = [_cell(reports, name, *shown) for shown in SHOWN]
        print(f"{name:24}" + "".join(f"{mean:9.4f} +- {spread:.4f}" for mean, spread in cells))
    means = {name: _cell(reports, name, "all", METRIC)[0] for name in names}
    peer = max((name for name in names if name != "model"), key=means.__getitem__)
    values = [report["models"]["model"]["all"][METRIC] for report in reports]
    detail = {"seeds": list(arguments.seeds), "model": values, "means": means}
    result = {
        "benchmark": "seeds",
        "peer": peer,
        "ratio": round(means["model"] / means[peer], 3),
        "target": 1.1,
        "higher_is_better": True,
        "detail": detail,
    }
    print(json.dumps(result))


def _report(arguments: Arguments, seed: int) -> dict:
    first = f"{arguments.output}/seed_{arguments.seeds[0]}"
    shared = {} if seed == arguments.seeds[0] else {"dataset": f"{first}/dataset"}
    run = ("--config", arguments.config, "--data", arguments.data, "--training.seed", str(seed))
    place = f"{arguments.output}/seed_{seed}"
    return run_pipeline(place, shared, *run, "--evaluation.baselines", *arguments.baselines)


def run_pipeline(output: str, shared: dict[str, str], *flags: str) -> dict:
    """The report of a pipeline in `output`, with artifacts of other runs by name taken over."""
    for kind, source in shared.items():
        if not Path(output, kind).exists():
            shutil.copytree(source, Path(output, kind))
    command = [sys.executable, "-m", "ray_jobs.pipeline", *flags, "--output", output]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(Path(output, "report", "report.json").read_text(encoding="utf-8"))


def _cell(reports: list[dict], name: str, segment: str, metric: str) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) over the seeds; 0 where the segment has no rows."""
    found = [report["models"][name].get(segment, {}).get(metric, 0.0) for report in reports]
    return float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else 0.0


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

"""Prepare on five times the rows: how speed and memory grow, with an object store of 1 GiB.

    python -m benchmarks.prepare_growth [--rows 10000000] [--times 5]

Both sizes run in turns, each in a process of its own with a Ray of its own on two CPUs; the larger
one's events do not fit the store, so its shuffle goes through files. Ratio: rows a second of the
larger over those of the smaller. `detail` has the peak memory of both, of all processes together,
with the object store and (`own`) without what processes share.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.prepare import run_job
from benchmarks.prepare_jobs import STORE_BYTES, write_raw

TARGET = 0.8


@dataclass(frozen=True)
class Arguments:
    """Size of the run."""

    rows: int = 10_000_000
    """Interactions of the smaller run."""
    times: int = 5
    """How many times as many the larger has."""
    rounds: int = 2
    """Runs of each size."""


def main(arguments: Arguments) -> None:
    """Run both sizes in turns and print the result as one JSON object."""
    sizes = {"small": arguments.rows, "large": arguments.rows * arguments.times}
    found: dict[str, list[dict]] = {name: [] for name in sizes}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in sizes.items():
            write_raw(Path(folder) / name, rows)
        for number in range(arguments.rounds):
            for name in sizes:
                output = Path(folder) / f"{name}-{number}"
                found[name].append(run_job("ray", Path(folder) / name, output))
                print(name, found[name][-1], file=sys.stderr, flush=True)
    _report(sizes, found)


def _report(sizes: dict[str, int], found: dict[str, list[dict]]) -> None:
    seconds = {n: statistics.median(run["seconds"] for run in runs) for n, runs in found.items()}
    speeds = {name: sizes[name] / seconds[name] for name in sizes}
    peaks = {name: max(run["peak_mib"] for run in runs) for name, runs in found.items()}
    own = {name: max(run["own_peak_mib"] for run in runs) for name, runs in found.items()}
    result = {
        "benchmark": "prepare_growth",
        "peer": f"prepare on {sizes['small']} rows",
        "ratio": round(speeds["large"] / speeds["small"], 3),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            name: {
                "rows": sizes[name],
                "seconds": seconds[name],
                "rows_per_second": round(speeds[name]),
                "peak_mib": peaks[name],
                "own_peak_mib": own[name],
            }
            for name in sizes
        }
        | {
            "peak_ratio": round(peaks["large"] / peaks["small"], 3),
            "own_peak_ratio": round(own["large"] / own["small"], 3),
            "store_bytes": STORE_BYTES,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

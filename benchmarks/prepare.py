"""The prepare stage on Ray Data against the same job in Polars and in DuckDB.

    python -m benchmarks.prepare [--rows 10000000]

Each runs in a process of its own, in turns, on the same generated Parquet files and two threads:
read, check (nulls, unknown items and events, times), quarantine, drop exact duplicates, sort each
user's events, leave the last two out, cut windows, count train events, tokenise the catalogue, and
write events, train, valid, test and items as zstd Parquet. Starting Ray and importing are not
timed; Ray's store is 1 GiB. Ratio: rows a second of `prepare` over those of Polars.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.prepare_jobs import JOBS, NUM_ITEMS, write_raw

TARGET = 0.5


@dataclass(frozen=True)
class Arguments:
    """Size of the run."""

    rows: int = 10_000_000
    """Interactions."""
    rounds: int = 3
    """Runs of each job."""


def main(arguments: Arguments) -> None:
    """Run all jobs in turns and print the result as one JSON object."""
    found: dict[str, list[dict]] = {name: [] for name in JOBS}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_raw(data, arguments.rows)
        for number in range(arguments.rounds):
            for name in JOBS:
                found[name].append(run_job(name, data, Path(folder) / f"{name}-{number}"))
                print(name, found[name][-1], file=sys.stderr, flush=True)
    _check_equal(found)
    _report(arguments, found)


def run_job(name: str, data: Path, output: Path) -> dict:
    """One job in a process of its own; its seconds, peak memory in MiB, and row counts."""
    command = [sys.executable, "-m", "benchmarks.prepare_jobs", name, str(data), str(output)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _check_equal(found: dict[str, list[dict]]) -> None:
    """All jobs must have written the same number of rows."""
    counts = {json.dumps(run["rows"], sort_keys=True) for runs in found.values() for run in runs}
    assert len(counts) == 1, counts


def _report(arguments: Arguments, found: dict[str, list[dict]]) -> None:
    seconds = {n: statistics.median(run["seconds"] for run in runs) for n, runs in found.items()}
    detail = {
        name: {
            "rows_per_second": round(arguments.rows / seconds[name]),
            "peak_mib": max(run["peak_mib"] for run in found[name]),
        }
        for name in found
    }
    result = {
        "benchmark": "prepare",
        "peer": "the same job in Polars",
        "ratio": round(seconds["polars"] / seconds["ray"], 3),
        "target": TARGET,
        "higher_is_better": True,
        "detail": detail
        | {
            "ratio_to_duckdb": round(seconds["duckdb"] / seconds["ray"], 3),
            "rows": arguments.rows,
            "items": NUM_ITEMS,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

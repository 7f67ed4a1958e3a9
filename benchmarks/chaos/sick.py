"""The training command with workers that fall ill on purpose.

    python -m benchmarks.chaos.sick nan 30+2,60+4 --output <dir> ...
    python -m benchmarks.chaos.sick slow_upload 80 --output <dir> ...
    python -m benchmarks.chaos.sick eats_memory 50,2.5,<file that says it did> --output <dir> ...

Everything after the first two arguments is for `ray_jobs.train`.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ray_jobs import train
from recsys.training import checkpoint, loop, trainer
from recsys.training.run import Run
from recsys.training.shards import Commit, upload_part

SICK_RANK = 1
SLEEP_S = 600
"""Longer than anything is waited for."""


def nan(when: str) -> None:
    """The loss of one rank is NaN; `30+2` are the 31st and 32nd loss that it computes."""
    spans = [span.split("+") for span in when.split(",")]
    bad = {int(first) + more for first, count in spans for more in range(int(count))}
    _at_each_loss(lambda call, loss: loss * math.nan if call in bad else loss)


def eats_memory(when: str) -> None:
    """One rank takes so many GiB at a loss, the first time, and holds them."""
    at, size, marker = when.split(",")
    held: list[torch.Tensor] = []

    def eat(call: int, loss: torch.Tensor) -> torch.Tensor:
        if call == int(at) and not Path(marker).exists():
            Path(marker).touch()
            held.append(torch.ones(int(float(size) * 2**28)))
        return loss

    _at_each_loss(eat)


def _at_each_loss(change: Callable[[int, torch.Tensor], torch.Tensor]) -> None:
    right, calls = loop.training_loss, itertools.count()

    def changed(run: Run, scored: Any) -> torch.Tensor:
        loss, call = right(run, scored), next(calls)
        return change(call, loss) if run.rank == SICK_RANK else loss

    loop.training_loss = changed


def slow_upload(when: str) -> None:
    """The upload of one rank's shards of this step does not end."""

    def slow(folder: Path, place: str, rank: int, commit: Commit) -> None:
        if rank == SICK_RANK and commit.step == int(when):
            time.sleep(SLEEP_S)
        upload_part(folder, place, rank, commit)

    checkpoint.upload_part = slow


ILLNESSES = {"nan": nan, "eats_memory": eats_memory, "slow_upload": slow_upload}


def sick_loop(illness: str, when: str) -> Callable[[dict[str, Any]], None]:
    """The loop of a worker that is ill."""

    def run(settings: dict[str, Any]) -> None:
        ILLNESSES[illness](when)
        loop.train_loop(settings)

    return run


if __name__ == "__main__":
    trainer.train_loop = sick_loop(*sys.argv[1:3])
    del sys.argv[1:3]
    train.main(sys.argv[1:])

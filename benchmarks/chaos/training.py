"""Faults of training, F1 to F12 and F29: the command as users run it, broken from outside.

    python -m benchmarks.chaos.training --output outputs/demo [--only F1 F8]

Takes the dataset that `make demo` leaves. Two workers train a model of IDs in fp32 under ZeRO-2;
every run that goes on has to end with the losses and weights of one that nobody broke.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from benchmarks.chaos import lost, spoilt
from benchmarks.chaos.report import Outcome, run_all
from benchmarks.chaos.scene import Scene
from benchmarks.chaos.trained import machines

Fault = Callable[[Scene], Outcome]


@dataclass(frozen=True)
class Arguments:
    """What is trained, and what is broken."""

    output: str = "outputs/demo"
    """Directory with `dataset`."""
    only: tuple[str, ...] = ()
    """Names of faults, such as F1; all by default."""
    kills: int = 20
    """Workers that F2 kills in one run."""


def not_here(needs: str) -> Fault:
    """A fault that this machine cannot have."""
    return lambda scene: Outcome(None, None, 0, None, f"not injected: it takes {needs}")


ONE_MACHINE: dict[str, Fault] = {
    "F1 worker killed": lost.worker_killed,
    "F2 workers killed at random": lost.workers_killed,
    "F4 controller killed": lost.controller_killed,
    "F6 SIGTERM in an upload": spoilt.upload_cut,
    "F7 Ray's snapshot torn": spoilt.snapshot_torn,
    "F8 shards altered, swapped": spoilt.shards_altered,
    "F8 shards gone, cut short": spoilt.shards_lost,
    "F9 disk full": spoilt.disk_full,
    "F10 loss NaN for a while": spoilt.loss_bad,
    "F10 loss NaN for good": spoilt.loss_stays_bad,
    "F11 rank hangs": lost.rank_hangs,
    "F29 two trainers, clock jumps": lost.two_trainers,
    "F5 head lost": lost.head_lost,
}
"""On a cluster of one machine with two CPUs, which the last one ends."""
THREE_MACHINES: dict[str, Fault] = {
    "F3 machine lost": lost.machine_lost,
    "F3 a machine fewer": lost.machine_fewer,
}
"""On a head without CPUs and three machines with one."""
NO_MACHINE: dict[str, Fault] = {
    "F12 memory gone": lost.memory_gone,
    "F11 rank hangs in NCCL": not_here("two GPUs"),
    "F12 GPU memory gone": not_here("a GPU"),
}
"""Those that make a cluster for themselves, or need none."""


def main(arguments: Arguments) -> None:
    """Inject every fault and print what it did."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        scene = Scene(Path(arguments.output) / "dataset", Path(folder), arguments.kills)
        run_all(_faults(scene, arguments.only), harm="steps lost")


def _faults(scene: Scene, only: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Each on its cluster, which is there while the fault is injected."""
    for cpus, faults in ((2,), ONE_MACHINE), ((0, 1, 1, 1), THREE_MACHINES), ((), NO_MACHINE):
        wanted = [name for name in faults if not only or name.split()[0] in only]
        if wanted:
            with machines(*cpus) as cluster:
                scene.address = cluster.gcs_address or ""
                yield from ((name, partial(faults[name], scene)) for name in wanted)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

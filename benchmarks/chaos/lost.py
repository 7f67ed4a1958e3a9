"""Faults of training in which something that runs is lost: a worker, a machine, the driver's side.

Noticed is when the last of the old workers is gone, or the command has ended; recovered is when a
step is made that was not made before.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from benchmarks.chaos.report import Outcome
from benchmarks.chaos.scene import (
    BREAK_AT,
    EPOCHS,
    EVERY,
    MOST_LOST,
    SAME_SHARDED_ANEW,
    STEPS_AN_EPOCH,
    Injected,
    Scene,
)
from benchmarks.chaos.trained import CONTROLLER, WORKER, Training, gone, machines, processes, until

HANG_S = 30
"""training.collective_timeout_s of the run with a hanging rank."""
ANY = "1000"
"""training.max_failures of the run that is killed often."""
JUMP_S = 86_400
REAPED_S = 30
MEMORY_GIB = 4.0
"""What a run and its cluster may take before Ray's memory monitor acts; they take about 3."""


def _broken(run: Training, inject: Callable[[], object]) -> Injected:
    """Inject at a step, and wait until the old workers are gone."""
    run.until_step(BREAK_AT)
    workers = processes(WORKER)
    at = time.time()
    inject()
    detected = until(lambda: gone(workers) or run.ended, "the old workers end")
    return Injected(at, detected, run.step)


def _survived(
    scene: Scene,
    name: str,
    inject: Callable[[], object],
    *flags: str,
    sick: tuple[str, ...] = (),
    checked: str = "one command",
) -> Outcome:
    with scene.training(name, *flags, sick=sick) as run:
        fault = _broken(run, inject)
        run.until_end()
    return scene.outcome(run, fault, checked)


def worker_killed(scene: Scene) -> Outcome:
    """`kill -9` a worker in the midst of a step."""
    return _survived(scene, "worker", lambda: processes(WORKER)[0].kill())


def workers_killed(scene: Scene) -> Outcome:
    """`kill -9` a worker chosen at random, again and again, each time after some steps."""
    dice, total = random.Random(0), STEPS_AN_EPOCH * EPOCHS
    steps = sorted(dice.sample(range(EVERY, total - EVERY), scene.kills))
    faults: list[Injected] = []
    with scene.training("workers", "--training.max-failures", ANY) as run:
        for step in steps:
            until(lambda s=step: _at(run) >= s or run.ended, f"step {step}")
            workers = processes(WORKER)
            if run.ended or not workers:
                break
            at = time.time()
            dice.choice(workers).kill()
            detected = until(lambda w=workers: gone(w) or run.ended, "the old workers end")
            faults.append(Injected(at, detected, _at(run)))
            number = len(faults)
            until(lambda n=number: len(run.resumed()) >= n or run.ended, "the run goes on")
        run.until_end()
    resumed = [step for _, step in run.resumed()]
    lost = [fault.before - step for fault, step in zip(faults, resumed, strict=False)]
    most = max(lost, default=0)
    checked = f"{len(faults)} kills, {most} steps lost at most in one; each step made once"
    fits = len(faults) == scene.kills and most <= MOST_LOST
    every = MOST_LOST * scene.kills
    return scene.outcome(run, faults[0], checked, fits, most_lost=every, lost=sum(lost))


def _at(run: Training) -> int:
    """The last step that its log has now; smaller after it went back."""
    return run.steps[-1][1] if run.steps else 0


def machine_lost(scene: Scene) -> Outcome:
    """`kill -9` the raylet of a machine with a worker; there is one to spare."""
    return _survived(scene, "machine", _kill_machine, checked="two of the three machines are left")


def _kill_machine() -> None:
    raylet = processes(WORKER)[0].parent()
    assert raylet is not None
    _kill(raylet)


def machine_fewer(scene: Scene) -> Outcome:
    """The same without one to spare: the command is stopped, and given again for one worker."""
    with scene.training("fewer") as run:
        fault = _broken(run, _kill_machine)
        run.stop()
    with scene.training("fewer", "--training.num-workers", "1") as again:
        again.until_end()
    checked = "stopped, and the same command with one worker and the same global batch"
    return scene.outcome(again, fault, checked, same=SAME_SHARDED_ANEW)


def controller_killed(scene: Scene) -> Outcome:
    """`kill -9` Ray Train's controller, which nobody restarts: the command has to end."""
    with scene.training("controller") as run:
        fault = _broken(run, lambda: processes(CONTROLLER)[0].kill())
        code = run.until_end()
        until(lambda: not processes(WORKER), "workers end with the command")
    return _given_again(scene, "controller", fault, code, "no worker was left")


def head_lost(scene: Scene) -> Outcome:
    """`kill -9` all that a head is, its GCS (no Redis behind it) and its raylet: all is over, and
    goes on on another cluster."""
    with scene.training("head") as run:
        fault = _broken(run, _kill_head)
        code = run.until_end()
    with machines(2) as cluster:
        scene.address = cluster.gcs_address
        return _given_again(scene, "head", fault, code, "a new cluster")


def _kill_head() -> None:
    for process in processes("gcs_server") + processes("raylet/raylet"):
        _kill(process)


def _kill(daemon: psutil.Process) -> None:
    """`kill -9`, and collect it: workers take a raylet that is a zombie for alive."""
    daemon.kill()
    daemon.wait(REAPED_S)


def _given_again(scene: Scene, name: str, fault: Injected, code: int, how: str) -> Outcome:
    with scene.training(name) as again:
        again.until_end()
    return scene.outcome(again, fault, f"exit {code}, {how}, the same command again", code != 0)


def rank_hangs(scene: Scene) -> Outcome:
    """SIGSTOP a worker: the other waits for it in a collective, and no process has ended."""
    flags = "--training.collective-timeout-s", str(HANG_S)
    checked = f"the limit was {HANG_S} s"
    return _survived(scene, "hang", lambda: processes(WORKER)[0].suspend(), *flags, checked=checked)


def memory_gone(scene: Scene) -> Outcome:
    """A worker takes memory until Ray's monitor acts; the cluster is made with a limit for it."""
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + MEMORY_GIB * 2**30) / memory.total
    if limit > 0.95:
        said = f"not injected: it takes {MEMORY_GIB} GiB that nobody else uses"
        return Outcome(None, None, 0, None, said)
    marker = str(scene.folder / "ate")
    with machines(2, RAY_memory_usage_threshold=f"{limit:.4f}") as cluster:
        scene.address = cluster.gcs_address
        sick = "eats_memory", f"{BREAK_AT},{MEMORY_GIB},{marker}"
        return _survived(scene, "memory", lambda: None, sick=sick, checked="the command lived on")


def two_trainers(scene: Scene) -> Outcome:
    """A second trainer of the same run, while the first one's workers are stopped and the files'
    times jump by a day: clocks are not to be believed, and the first one's life is."""
    with scene.training("twice") as first:
        first.until_step(BREAK_AT)
        with _stopped(processes(WORKER)):
            _jump(scene)
            at, before = time.time(), first.step
            with scene.training("twice") as second:
                code = second.until_end()
            fault = Injected(at, time.time(), before)
        refused = second.said("is being trained by process") is not None
        first.until_end()
    checked = f"the second ended with {code} and the first one's name"
    return scene.outcome(first, fault, checked, refused and code != 0, lost=0)


@contextmanager
def _stopped(found: list[psutil.Process]) -> Iterator[None]:
    for process in found:
        process.suspend()
    try:
        yield
    finally:
        for process in found:
            process.resume()


def _jump(scene: Scene) -> None:
    for number, path in enumerate(sorted(scene.output("twice").rglob("*"))):
        if path.is_file() and not path.is_symlink():
            moved = time.time() + (JUMP_S if number % 2 else -JUMP_S)
            os.utime(path, (moved, moved))

"""Faults of training that spoil what is stored or learned: checkpoints, disks, losses.

Noticed is when the run says so; recovered is when a step is made that was not made before.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import psutil

from benchmarks.chaos.report import Outcome
from benchmarks.chaos.scene import BREAK_AT, EVERY, MOST_LOST, Injected, Scene, Truth
from benchmarks.chaos.trained import ROWS, WORKER, processes, until
from recsys.training.shards import COMMIT, list_checkpoints

FOR_EVER = 1_000_000
"""Losses that are NaN."""
BACK = "; back to step "
HALF_AT = BREAK_AT // EVERY * EVERY
"""The step whose upload never ends."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own list of a run's checkpoints."""
FULL = 4_096
"""Bytes that a file of the worker with the full disk may have."""
FAR = 5 * EVERY
"""Steps that are lost at most where the two newest checkpoints are spoilt: the next kept one is
from the end of an epoch."""


def upload_cut(scene: Scene) -> Outcome:
    """SIGTERM while a checkpoint is uploaded: one rank's part is there, and the other's is not."""
    sick = "slow_upload", str(HALF_AT)
    with scene.training("upload", sick=sick) as run:
        until(lambda: _half(run.output) is not None or run.ended, "half of a checkpoint")
        half = _half(run.output)
        at = time.time()
        run.stop()
        fault = Injected(at, time.time(), run.step)
    with scene.training("upload") as again:
        code = again.until_end()
    assert half is not None
    refused = again.said(f"{half.name}: 'manifest-00001.json' is missing") is not None
    checked = f"exit {run.process.returncode} at SIGTERM, then {code}; the half one was named"
    return scene.outcome(again, fault, checked, refused)


def _half(output: Path) -> Path | None:
    """The checkpoint that rank 0 has committed and rank 1 never will, once it is there."""
    commits = output.glob(f"checkpoint-run/*/step_{HALF_AT:08d}_*/{COMMIT}")
    return next((commit.parent for commit in commits), None)


def snapshot_torn(scene: Scene) -> Outcome:
    """Ray Train's own list of the run's checkpoints was cut in the middle by a kill."""
    step = scene.interrupted("snapshot")
    path = _run(scene, "snapshot") / SNAPSHOT
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    checked = f"{len(content) // 2} of {len(content)} bytes of the list were left"
    return _gone_on(scene, "snapshot", step, checked, MOST_LOST)


def shards_altered(scene: Scene) -> Outcome:
    """A bit of the newest checkpoint is flipped; in the one before, two ranks' shards change
    places."""
    step = scene.interrupted("altered")
    newest, before = _newest(scene, "altered")
    shard = _shards(newest)[1]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    one, other = _shards(before)
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    return _gone_on(scene, "altered", step, "both were named", FAR, (newest.name, before.name))


def shards_lost(scene: Scene) -> Outcome:
    """A shard of the newest checkpoint is gone, and one of the checkpoint before is cut short."""
    step = scene.interrupted("lost")
    newest, before = _newest(scene, "lost")
    _shards(newest)[0].unlink()
    shard = _shards(before)[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    return _gone_on(scene, "lost", step, "both were named", FAR, (newest.name, before.name))


def _run(scene: Scene, name: str) -> Path:
    """The folder of an output's run."""
    return next((scene.folder / name).glob(f"checkpoint-run/*/{ROWS}")).parent


def _newest(scene: Scene, name: str) -> tuple[Path, Path]:
    run = _run(scene, name)
    newest, before = [
        run / found for found in list_checkpoints(str(run)) if (run / found / COMMIT).exists()
    ][:2]
    return newest, before


def _shards(place: Path) -> list[Path]:
    """The ranks' optimizer states."""
    return sorted(place.rglob("*_optim_states.pt"))


def _gone_on(
    scene: Scene, name: str, before: int, checked: str, most_lost: int, named: tuple[str, ...] = ()
) -> Outcome:
    """Give the command again, and see that it names what it refuses."""
    at = time.time()
    with scene.training(name) as run:
        run.until_end()
    said = [run.said(f"{place}: '") for place in named]
    seen = [when for when in said if when is not None]
    fault = Injected(at, max(seen) if seen else None, before)
    return scene.outcome(run, fault, checked, len(seen) == len(named), most_lost=most_lost)


def disk_full(scene: Scene) -> Outcome:
    """One rank's disk takes no file of more than 4 KiB (RLIMIT_FSIZE); then it is freed."""
    with scene.training("disk", "--training.max-failures", "0") as run:
        run.until_step(BREAK_AT)
        at = time.time()
        resource.prlimit(_without_log().pid, resource.RLIMIT_FSIZE, (FULL, FULL))
        code = run.until_end()
        told = run.said("free the disk")
        fault = Injected(at, told, run.step)
    with scene.training("disk") as again:
        again.until_end()
    checked = f"exit {code} and 'free the disk'; then the same command again"
    return scene.outcome(again, fault, checked, told is not None and code != 0)


def _without_log() -> psutil.Process:
    """The worker that does not write the run's log: no file but its shards is large."""
    return next(
        w for w in processes(WORKER) if not any(f.path.endswith(ROWS) for f in w.open_files())
    )


def loss_bad(scene: Scene) -> Outcome:
    """One rank's loss is NaN for two steps, which are left out, and later for four, after which the
    run goes back; it learns something else from there on, so that losses are not compared."""
    with scene.training("bad", sick=("nan", f"30+2,{BREAK_AT}+4")) as run:
        run.until_step(BREAK_AT)
        at = time.time()
        code = run.until_end()
    found = next(((when, line) for when, line in run.printed if BACK in line), None)
    if found is None or code != 0:
        return Outcome(None, None, 0, False, f"exit {code}, and no way back:\n{run.tail()}")
    detected, line = found
    before = max(step for when, step in run.steps if when <= detected)
    back_at = int(line.partition(BACK)[2].split()[0])
    new = next(when for when, step in run.steps if when > detected and step > before)
    said = "2 steps left out; after 4 more back to a checkpoint; no loss or weight is NaN"
    passed = Truth.of(run.output).finite and before - back_at <= MOST_LOST
    return Outcome(detected - at, new - at, before - back_at, passed, said)


def loss_stays_bad(scene: Scene) -> Outcome:
    """The loss is NaN from some step on, whatever is tried: the run stops and says what to do."""
    with scene.training(
        "nan", "--training.max-failures", "0", sick=("nan", f"{BREAK_AT}+1000000")
    ) as run:
        run.until_step(BREAK_AT)
        at = time.time()
        code = run.until_end()
        told = run.said("so it stops: lower training.learning_rate")
        fault = Injected(at, told, run.step)
    with scene.training("nan") as again:
        again.until_end()
    checked = f"exit {code}, and what to do; the same command without the fault again"
    return scene.outcome(again, fault, checked, told is not None and code != 0)

"""The trainer on Ray Train against the same model, batches and steps without Ray.

The default model on a generated world with random text vectors, 128 windows a step. Two ranks each,
gloo, CPU, ZeRO-2 in fp32. Ours: Ray Train workers with ingest, log and watch as in
training. Peer: processes with torch.distributed and DeepSpeed alone that have all batches in memory
and log nothing. Both stay alive and take turns by blocks of steps, so that other work on the
machine meets both; only blocks are timed. Ratio: windows a second of ours, over those of the peer.
"""

from __future__ import annotations

import json
import logging
import os
import select
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, cast

import ray
import torch
import torch.distributed
from safetensors.torch import save

from benchmarks.bare_ranks import WORLD_SIZE, run_ranks
from recsys.artifact import Artifact
from recsys.config import ModelConfig, PrepareConfig, TrainingConfig, WorldConfig
from recsys.data.prepare import prepare
from recsys.data.synthetic import generate, write_world
from recsys.models.build import ModelShape
from recsys.training.anomaly import Watch
from recsys.training.cursor import Cursor
from recsys.training.ingest import Ingest, Ready
from recsys.training.job import TrainJob
from recsys.training.lease import hold
from recsys.training.loop import train_step
from recsys.training.progress import Journal
from recsys.training.run import make_run, start_run
from recsys.training.text_cache import TEXT_VECTORS
from recsys.training.workers import run_workers

BLOCKS, STEPS, MAX_HISTORY, TEXT_SIZE = 42, 4, 30, 384
"""Blocks a side, and steps a block."""
WINDOWS = TrainingConfig().global_batch_size
"""Windows a step."""
WARM_UP = 2
"""Blocks that are not counted."""
TIMEOUT_S = 300.0
"""A side waits so long for its turn."""
TARGET = 0.975
OURS, PEER = "ray", "bare"

Seconds = tuple[float, float]
"""Of a block: by the clock, and of CPU by the processes of both ranks."""


def main() -> None:
    """Run both and print the result as one JSON object."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in (OURS, PEER):
            os.mkfifo(folder / side)
        kept = [os.open(folder / side, os.O_RDWR) for side in (OURS, PEER)]
        _start_ray()
        job = _make_job(folder)
        settings = {"job": job.model_dump(mode="json"), "folder": name}
        with ThreadPoolExecutor(1) as pool, hold(f"{name}/run") as lease:
            peer = pool.submit(run_ranks, bare, settings)
            os.write(kept[0], b"!")
            run_workers(on_ray, settings, job.training, f"{name}/run", lease)
            bare_seconds = peer.result()
        ray.shutdown()
        ray_seconds = json.loads((folder / "seconds.json").read_text())
    _report(ray_seconds, bare_seconds)


def _start_ray() -> None:
    ray.init(
        "local",
        num_cpus=WORLD_SIZE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        # Ray's workers are 15 nicer than others, which tells beside other work and not alone.
        _system_config={"worker_niceness": 0},
    )


def on_ray(settings: dict[str, Any]) -> None:
    """What a Ray Train worker does."""
    run = start_run(TrainJob.model_validate(settings["job"]))
    cursor, epochs, watch = Cursor(), run.job.training.epochs, Watch(run.job.training)
    with Ingest(run.batches.epochs(cursor, epochs)) as ingest, Journal(run, cursor, []) as journal:
        batches = chain.from_iterable(ingest.epoch() for _ in range(epochs))

        def step(ready: Ready, cursor: Cursor) -> None:
            journal.lap("data")
            loss = train_step(run, ready.batch, cursor.step, watch, journal)
            watch.saw(cursor.step, loss, run.engine.was_step_applied())
            journal.step(cursor.after(ready.num_windows), loss, watch.num_bad)

        seconds = _time_blocks(run.rank, settings["folder"], (OURS, PEER), batches, step)
    if run.rank == 0:
        Path(settings["folder"], "seconds.json").write_text(json.dumps(seconds))


class Silent:
    """In place of a journal: measures and writes nothing."""

    def lap(self, name: str) -> None:
        """Nothing."""

    def encoded(self, scored: object) -> None:
        """Nothing."""


def bare(rank: int, settings: dict[str, Any]) -> list[Seconds]:
    """What a rank without Ray does; returns the seconds of the blocks."""
    job = TrainJob.model_validate(settings["job"])
    run = make_run(job, rank, WORLD_SIZE, torch.device("cpu"))
    watch, silent = Watch(job.training), cast(Journal, Silent())
    found = (ready for ready in run.batches.epochs(Cursor(), job.training.epochs) if ready)
    batches = list(islice(found, BLOCKS * STEPS))

    def step(ready: Ready, cursor: Cursor) -> None:
        train_step(run, ready.batch, cursor.step, watch, silent)

    return _time_blocks(rank, settings["folder"], (PEER, OURS), iter(batches), step)


def _time_blocks(
    rank: int,
    folder: str,
    sides: tuple[str, str],
    batches: Iterator[Ready],
    step: Callable[[Ready, Cursor], None],
) -> list[Seconds]:
    """The seconds of each block; this side is the first of the two."""
    mine, other = (os.open(Path(folder) / side, os.O_RDWR) for side in sides)
    cursor, seconds = Cursor(), list[Seconds]()
    for _ in repeat(None, BLOCKS):
        if rank == 0:
            _await_turn(mine)
        torch.distributed.barrier()
        started, worked = time.perf_counter(), time.process_time()
        for ready in islice(batches, STEPS):
            step(ready, cursor)
            cursor = cursor.after(ready.num_windows)
        torch.distributed.barrier()
        passed, cpu = time.perf_counter() - started, torch.tensor(time.process_time() - worked)
        torch.distributed.all_reduce(cpu)
        seconds.append((passed, cpu.item()))
        if rank == 0:
            os.write(other, b"!")
    assert cursor.step == BLOCKS * STEPS
    return seconds


def _await_turn(pipe: int) -> None:
    ready, _, _ = select.select([pipe], [], [], TIMEOUT_S)
    if not ready:
        raise TimeoutError(f"the other side gave no turn in {TIMEOUT_S:g} s")
    os.read(pipe, 1)


def _make_job(folder: Path) -> TrainJob:
    write_world(generate(WorldConfig(num_queries=0)), folder / "world")
    model = ModelConfig()
    config = PrepareConfig(max_history=MAX_HISTORY, num_partitions=4)
    dataset = prepare(config, model.backbone, str(folder / "world"), str(folder / "dataset"))
    num_items = dataset.manifest.facts["num_items"]
    vectors = {TEXT_VECTORS: torch.randn(num_items, TEXT_SIZE)}
    (folder / "text.safetensors").write_bytes(save(vectors))
    return TrainJob(
        dataset=dataset.uri,
        model=model,
        training=TrainingConfig(
            num_workers=WORLD_SIZE,
            precision="fp32",
            epochs=_epochs(dataset),
            max_failures=0,
        ),
        shape=ModelShape(
            num_items=num_items,
            max_history=MAX_HISTORY,
            num_events=len(dataset.manifest.config["prepare"]["events"]),
            text_size=TEXT_SIZE,
        ),
        text_vectors=str(folder / "text.safetensors"),
    )


def _epochs(dataset: Artifact) -> int:
    """Enough for all blocks."""
    return -(-BLOCKS * STEPS // (dataset.manifest.facts["rows"]["train"] // WINDOWS))


def _report(ours: list[Seconds], peer: list[Seconds]) -> None:
    (wall, cpu), (peer_wall, peer_cpu) = (
        zip(*side[WARM_UP:], strict=True) for side in (ours, peer)
    )
    ratios = sorted(theirs / mine for mine, theirs in zip(wall, peer_wall, strict=True))
    windows = STEPS * WINDOWS
    result = {
        "benchmark": "ray_overhead",
        "peer": "the same steps with torch.distributed and DeepSpeed, batches in memory, no log",
        "ratio": round(statistics.median(ratios), 3),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            "quartiles": [round(found, 3) for found in statistics.quantiles(ratios)],
            "windows_per_second": {
                OURS: round(windows / statistics.median(wall), 1),
                PEER: round(windows / statistics.median(peer_wall), 1),
            },
            "ratio_of_best_blocks": round(min(peer_wall) / min(wall), 3),
            "ratio_by_cpu_seconds": round(sum(peer_cpu) / sum(cpu), 3),
            "cpu_ms_a_step": {
                OURS: round(1e3 * statistics.median(cpu) / STEPS / WORLD_SIZE, 2),
                PEER: round(1e3 * statistics.median(peer_cpu) / STEPS / WORLD_SIZE, 2),
            },
            "blocks": len(ratios),
            "steps_a_block": STEPS,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

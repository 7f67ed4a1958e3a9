"""How long a checkpoint stops training: uploaded meanwhile against uploaded before the next step.

Two Ray Train workers, gloo, CPU, ZeRO-2 in fp32, a table of 60,000 items (92 MB of weights and
moments). The storage is moto's S3 on this machine. Both ways write the same shards to the disk; a
few steps follow each, and no upload is under way when the next begins. Ratio: seconds that all
ranks stand still, over those of the peer.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import ray
import ray.train
import torch
import torch.distributed
from botocore.exceptions import EndpointConnectionError

from recsys.config import ModelConfig, TrainingConfig
from recsys.data.collate import collate_windows
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import softmax_loss
from recsys.schema import History
from recsys.training.checkpoint import save, write_shards
from recsys.training.cursor import Cursor
from recsys.training.lease import hold
from recsys.training.shards import (
    VERSION,
    Commit,
    ShardError,
    folder_name,
    read_commit,
    read_manifest,
    upload_part,
)
from recsys.training.workers import run_workers
from recsys.training.zero import start_engine

WORLD_SIZE, ITEMS, SIZE, STEPS, ROUNDS = 2, 60_000, 128, 4, 5
TIMEOUT_S = 120.0
TARGET = 0.2
BUCKET = "shop"
RUN = f"s3://{BUCKET}/checkpoint-run/run"
TRAINING = TrainingConfig(
    num_workers=WORLD_SIZE, precision="fp32", global_batch_size=2 * WORLD_SIZE, max_failures=0
)


def main() -> None:
    """Run both and print the result as one JSON object."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as storage:
            try:
                _train(folder)
            finally:
                storage.terminate()
        found = json.loads(Path(folder, "seconds.json").read_text())
    _report(found)


def _train(folder: str) -> None:
    _await(lambda: bool(boto3.client("s3").create_bucket(Bucket=BUCKET)), EndpointConnectionError)
    ray.init("local", num_cpus=WORLD_SIZE, include_dashboard=False, log_to_driver=False)
    with hold(RUN) as lease:
        run_workers(on_ray, {"folder": folder}, TRAINING, RUN, lease)
    ray.shutdown()


def on_ray(settings: dict[str, Any]) -> None:
    """What a Ray Train worker does."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rank = ray.train.get_context().get_world_rank()
    model = ModelConfig(item_features="id", embedding_size=SIZE)
    shape = ModelShape(num_items=ITEMS, max_history=8, num_events=1, text_size=0)
    engine = start_engine(build_model(model, shape), TRAINING, total_steps=1_000)
    seconds: dict[str, list[float]] = {"meanwhile": [], "before": [], "step": []}
    step = 0
    for _ in range(ROUNDS + 1):
        for name, checkpoint in (("meanwhile", _save), ("before", _save_and_wait)):
            seconds["step"].append(_steps(engine) / STEPS)
            step += STEPS
            torch.distributed.barrier()
            started = time.perf_counter()
            checkpoint(engine, Cursor(0, step, step), rank)
            torch.distributed.barrier()
            seconds[name].append(time.perf_counter() - started)
            _await_upload(f"{RUN if name == 'meanwhile' else f'{RUN}-before'}", step)
            torch.distributed.barrier()
    if rank == 0:
        Path(settings["folder"], "seconds.json").write_text(json.dumps(seconds))


def _steps(engine: Any) -> float:
    """Seconds of a few steps on a sample of the items."""
    started = time.perf_counter()
    for _ in range(STEPS):
        batch = collate_windows([History.of_items(list(range(8)))] * 2)
        users_PD, items_CD, targets_P = engine(batch, ItemInputs(torch.arange(500)))
        engine.backward(softmax_loss(users_PD, items_CD, targets_P, 0.07))
        engine.step()
    return time.perf_counter() - started


def _save(engine: Any, cursor: Cursor, rank: int) -> None:
    save(engine, cursor, [], {})


def _save_and_wait(engine: Any, cursor: Cursor, rank: int) -> None:
    commit = Commit(
        version=VERSION,
        save_id=f"{cursor.step}",
        world_size=WORLD_SIZE,
        step=cursor.step,
        epoch=cursor.epoch,
        windows=cursor.windows,
        metrics={},
    )
    folder = write_shards(engine, cursor, [], rank, f"before-{uuid4().hex}-")
    upload_part(folder, f"{RUN}-before/{folder_name(cursor.step, cursor.epoch)}", rank, commit)
    shutil.rmtree(folder)


def _await_upload(run: str, step: int) -> None:
    place = f"{run}/{folder_name(step, 0)}"

    def whole() -> bool:
        commit = read_commit(place)
        return all(read_manifest(place, commit, rank).files for rank in range(WORLD_SIZE))

    _await(whole, ShardError)


def _await(true: Callable[[], bool], not_yet: type[Exception]) -> None:
    """Ask until the answer is yes; an error of this kind is a no.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except not_yet:
            time.sleep(0.1)
    raise TimeoutError(f"no answer in {TIMEOUT_S:g} s")


def _report(found: dict[str, list[float]]) -> None:
    meanwhile, before = found["meanwhile"][1:], found["before"][1:]  # the first warms up
    ratios = [one / other for one, other in zip(meanwhile, before, strict=True)]
    result = {
        "benchmark": "checkpoint_stall",
        "peer": "the same shards, uploaded before training goes on",
        "ratio": round(statistics.median(ratios), 3),
        "target": TARGET,
        "higher_is_better": False,
        "detail": {
            "ratios": [round(ratio, 3) for ratio in ratios],
            "stall_seconds": {
                "meanwhile": round(statistics.median(meanwhile), 3),
                "before": round(statistics.median(before), 3),
            },
            "step_seconds": round(statistics.median(found["step"]), 3),
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

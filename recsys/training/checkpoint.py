"""Sharded checkpoints for resume: every rank's ZeRO shards, the cursor and the log."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective

from recsys.models.build import LOG
from recsys.training.cursor import Cursor
from recsys.training.zero import TAG

Log = list[dict[str, float]]


def save(engine: Any, cursor: Cursor, log: Log, metrics: dict[str, float]) -> None:
    """Report a checkpoint of this state; every rank must call it."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save_checkpoint(folder, tag=TAG, client_state={"cursor": asdict(cursor)})
        if ray.train.get_context().get_world_rank() == 0:
            (Path(folder) / LOG).write_text(json.dumps(log))
        ray.train.report(
            {"step": cursor.step, "epoch": cursor.epoch, **metrics},
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_dir_name=f"step_{cursor.step:08d}_epoch_{cursor.epoch:04d}",
        )


def restore(engine: Any) -> tuple[Cursor, Log]:
    """Load the run's latest checkpoint, if there is one, into the engine.

    Raises:
        RuntimeError: the checkpoint cannot be loaded.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return Cursor(), []
    with checkpoint.as_directory() as folder:
        path, client = engine.load_checkpoint(folder, tag=TAG)
        if path is None:
            raise RuntimeError(f"no DeepSpeed checkpoint '{TAG}' in {checkpoint.path}")
        log = json.loads((Path(folder) / LOG).read_text())
        # The folder is shared by the node's ranks and goes when the first one leaves.
        ray.train.collective.barrier()
    return Cursor(**client["cursor"]), log

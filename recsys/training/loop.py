"""How it learns: the function every Ray Train worker runs. Read it top to bottom."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from recsys.schema import Batch
from recsys.training.checkpoint import Log, restore, save
from recsys.training.cursor import Cursor
from recsys.training.ingest import Ingest
from recsys.training.job import TrainJob
from recsys.training.progress import log_epoch, log_step
from recsys.training.run import Run, start_run
from recsys.training.step import score, training_loss
from recsys.training.validate import validate

LOG_EVERY = 10
"""Steps between two rows of the log."""


def train_loop(settings: dict[str, Any]) -> None:
    """Train, from the run's last checkpoint if there is one; a checkpoint after every epoch."""
    job = TrainJob.model_validate(settings)
    run = start_run(job)
    cursor, log = restore(run.engine)
    with Ingest(run.batches.epochs(cursor, job.training.epochs)) as ingest:
        while cursor.epoch < job.training.epochs:
            cursor = train_epoch(run, ingest, cursor, log)
            metrics = validate(run)
            log_epoch(run, log, cursor, metrics)
            save(run.engine, cursor, log, metrics)


def train_epoch(run: Run, ingest: Ingest, cursor: Cursor, log: Log) -> Cursor:
    """The steps that are left of an epoch; returns the cursor at the start of the next."""
    started, first = time.perf_counter(), cursor.step
    every = run.job.training.checkpoint_every
    for ready in ingest.epoch():
        loss = train_step(run, ready.batch, cursor)
        cursor = cursor.after(ready.num_windows)
        if cursor.step % LOG_EVERY == 0:
            speed = (cursor.step - first) / (time.perf_counter() - started)
            log_step(run, log, cursor, loss, speed, ingest.wait_share())
        if every and cursor.step % every == 0:
            save(run.engine, cursor, log, {})
    return cursor.next_epoch()


def train_step(run: Run, batch: Batch, cursor: Cursor) -> float:
    """One step on this rank's share of a global batch; returns the rank's loss."""
    # Dropout and negatives follow from the step alone, so that a resumed run repeats them.
    torch.manual_seed(run.seed(cursor.step))
    run.engine.train()
    scored = score(run, batch, cursor.step)
    loss = training_loss(run, scored)
    # The mean over this batch, weighed by its targets: one among few counts no more than others.
    run.engine.backward(loss * (len(scored.targets_P) / run.targets_a_step))
    run.engine.step()
    value = loss.item()
    if not np.isfinite(value):
        raise FloatingPointError(
            f"loss is {value} at step {cursor.step}: lower training.learning_rate, or use fp32"
        )
    return value

"""How it learns: the function every Ray Train worker runs. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recsys.schema import Batch
from recsys.training.anomaly import Diverged, Watch, roll_back
from recsys.training.checkpoint import Log, restore, save
from recsys.training.cursor import Cursor
from recsys.training.ingest import Ingest
from recsys.training.job import TrainJob
from recsys.training.private import PrivateStep
from recsys.training.progress import Journal
from recsys.training.run import Run, start_run
from recsys.training.step import mean_over_ranks, score_parts, split, training_loss
from recsys.training.validate import validate

Step = Callable[[Run, Batch, int, Watch, Journal], torch.Tensor]
"""`train_step`, or what stands in its place; called by all ranks."""


def train_loop(settings: dict[str, Any]) -> None:
    """Train, from the run's last checkpoint if there is one; back to it when the loss goes bad."""
    job = TrainJob.model_validate(settings)
    run = start_run(job)
    cursor, log = restore(run.engine)
    if run.rank == 0 and cursor != Cursor():
        print(f"going on from step {cursor.step}", flush=True)
    while cursor.epoch < job.training.epochs:
        try:
            cursor = train_from(run, cursor, log)
        except Diverged as why:
            cursor, log = roll_back(run, log, why)


def train_from(run: Run, cursor: Cursor, log: Log) -> Cursor:
    """The epochs that are left; a checkpoint after each.

    Raises:
        Diverged: the loss went bad, and no step since the last checkpoint is to be kept.
    """
    epochs = run.job.training.epochs
    watch = Watch(run.job.training)
    take_step = PrivateStep(run) if run.job.training.privacy.is_on else train_step
    with Ingest(run.batches.epochs(cursor, epochs)) as ingest, Journal(run, cursor, log) as journal:
        while cursor.epoch < epochs:
            cursor = train_epoch(run, ingest, cursor, watch, journal, take_step)
            metrics = validate(run)
            watch.judge(cursor.step, metrics)
            journal.epoch(cursor, metrics)
            save(run.engine, cursor, log, metrics)
    return cursor


def train_epoch(
    run: Run, ingest: Ingest, cursor: Cursor, watch: Watch, journal: Journal, take_step: Step
) -> Cursor:
    """The steps that are left of an epoch; returns the cursor at the start of the next."""
    every = run.job.training.checkpoint_every
    journal.start(cursor)
    for ready in ingest.epoch():
        journal.lap("data")
        loss = take_step(run, ready.batch, cursor.step, watch, journal)
        watch.saw(cursor.step, loss, run.engine.was_step_applied())
        cursor = cursor.after(ready.num_windows)
        journal.step(cursor, loss, watch.num_bad)
        if every and cursor.step % every == 0 and watch.trusts:
            save(run.engine, cursor, journal.log, {})
            journal.lap("checkpoint")
    return cursor.next_epoch()


def train_step(run: Run, batch: Batch, step: int, watch: Watch, journal: Journal) -> torch.Tensor:
    """One step on this rank's share of a global batch; returns all ranks' loss, on the device."""
    # Dropout and negatives follow from the step alone, so that a resumed run repeats them.
    torch.manual_seed(run.seed(step))
    run.engine.train()
    losses, weights = [], []
    for scored in score_parts(run, split(batch, run.job.training.accumulation), step):
        journal.encoded(scored.work)
        loss = training_loss(run, scored)
        losses.append(loss.detach())
        weights.append(scored.weight)
        mean = mean_over_ranks(losses, weights)
        journal.lap("loss")
        run.engine.backward(loss * scored.share * watch.guard(mean), scale_wrt_gas=False)
        journal.lap("backward")
        run.engine.step()
        journal.lap("optimizer")
    return mean

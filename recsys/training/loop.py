"""How it learns: the function every Ray Train worker runs. Read it top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train
import ray.train.torch
import torch
import torch.distributed

from recsys.artifact import open_artifact
from recsys.data.collate import collate_held_out, collate_windows, histories_of
from recsys.models.backbone import load_text_encoder
from recsys.models.build import build_model
from recsys.models.candidates import Candidates, draw_candidates, whole_catalogue
from recsys.models.losses import softmax_loss, target_ranks
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import NO_TARGET, Batch, History
from recsys.training.checkpoint import Log, restore, save
from recsys.training.cursor import Cursor, TrainWindows, rank_rows
from recsys.training.job import CatalogueInputs, TrainJob, read_train_counts, read_validation
from recsys.training.zero import start_engine

LOG_EVERY = 10
"""Steps between two rows of the log."""


def train_loop(settings: dict[str, Any]) -> None:
    """Train, from the run's last checkpoint if there is one; a checkpoint after every epoch."""
    job = TrainJob.model_validate(settings)
    run = start_run(job)
    cursor, log = restore(run.engine)
    while cursor.epoch < job.training.epochs:
        started, first = time.perf_counter(), cursor.step
        for windows in run.windows.batches(cursor, job.training.global_batch_size):
            loss = train_step(run, windows, cursor)
            cursor = cursor.after(len(windows))
            if cursor.step % LOG_EVERY == 0:
                speed = (cursor.step - first) / (time.perf_counter() - started)
                log_step(run, log, cursor, loss, speed)
            if job.training.checkpoint_every and cursor.step % job.training.checkpoint_every == 0:
                save(run.engine, cursor, log, {})
        cursor = cursor.next_epoch()
        metrics = validate(run)
        log_epoch(run, log, cursor, metrics)
        save(run.engine, cursor, log, metrics)


@dataclass(frozen=True)
class Run:
    """What one rank holds while it trains."""

    job: TrainJob
    rank: int
    world_size: int
    engine: Any
    windows: TrainWindows
    items: CatalogueInputs
    train_counts: torch.Tensor
    validation: tuple[list[History], list[int]]
    total_steps: int


def start_run(job: TrainJob) -> Run:
    """Build the model and the engine, and open the data."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)  # one worker a core; more threads would share it
    dataset = open_artifact(job.dataset, "dataset", check=False)
    windows = TrainWindows(dataset, job.training.seed, job.training.shuffle_windows)
    total_steps = job.training.epochs * windows.steps(job.training.global_batch_size)
    torch.manual_seed(job.training.seed)
    engine = start_engine(_build(job), job.training, total_steps)
    dtype = torch.bfloat16 if job.training.precision == "bf16" else torch.float32
    return Run(
        job=job,
        rank=rank,
        world_size=world_size,
        engine=engine,
        windows=windows,
        items=CatalogueInputs(job, dataset, device, dtype),
        train_counts=read_train_counts(dataset),
        validation=read_validation(dataset, job.training.max_validation_rows, world_size),
        total_steps=total_steps,
    )


def _build(job: TrainJob) -> RecommenderModel:
    tuned = job.model.tuning != "frozen"
    return build_model(job.model, job.shape, load_text_encoder(job.model) if tuned else None)


def train_step(run: Run, windows: pa.Table, cursor: Cursor) -> float:
    """One step on this rank's share of a global batch; returns the rank's loss."""
    # Dropout and negatives follow from the step alone, so that a resumed run repeats them.
    torch.manual_seed(_seed(run, cursor.step))
    run.engine.train()
    candidates, batch = _candidates(run, _rank_batch(run, windows), cursor.step)
    users_PD, items_CD, targets_P = _forward(run, batch, candidates)
    loss = softmax_loss(
        users_PD, items_CD, targets_P, run.job.model.temperature, _log_q(run, candidates)
    )
    run.engine.backward(loss)
    run.engine.step()
    value = loss.item()
    if not np.isfinite(value):
        raise FloatingPointError(
            f"loss is {value} at step {cursor.step}: lower training.learning_rate, or use fp32"
        )
    return value


def _rank_batch(run: Run, windows: pa.Table) -> Batch:
    share = rank_rows(windows, run.rank, run.world_size)
    if len(share):
        return collate_windows(histories_of(share))
    # Nothing left for this rank in the epoch's last batch: take part with a batch without targets.
    batch = collate_windows(histories_of(windows.slice(0, 1)))
    batch.targets.fill_(NO_TARGET)
    return batch


def _seed(run: Run, step: int) -> int:
    return run.job.training.seed * 1_000_003 + step * run.world_size + run.rank


def _candidates(run: Run, batch: Batch, step: int) -> tuple[Candidates, Batch]:
    negatives = run.job.training.num_negatives
    if not negatives:
        return whole_catalogue(run.job.shape.num_items), batch
    generator = torch.Generator().manual_seed(_seed(run, step))
    return draw_candidates(batch, run.train_counts, negatives, generator)


def _forward(run: Run, batch: Batch, candidates: Candidates) -> tuple[torch.Tensor, ...]:
    device = run.engine.device
    moved = Batch(
        item_indexes=batch.item_indexes.to(device),
        timestamps=batch.timestamps.to(device),
        events=batch.events.to(device),
        lengths=batch.lengths.to(device),
        targets=batch.targets.to(device),
    )
    return run.engine(moved, run.items.of(candidates.item_indexes))


def _log_q(run: Run, candidates: Candidates) -> torch.Tensor | None:
    return None if candidates.log_q is None else candidates.log_q.to(run.engine.device)


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Loss and NDCG@10 of the validation rows among the step's kind of candidates."""
    histories, targets = run.validation
    if not histories:
        return {}
    run.engine.eval()
    size, world = run.job.training.global_batch_size, run.world_size
    sums = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(histories) // world, size):
        mine = slice(run.rank + start * world, run.rank + (start + size) * world, world)
        batch = collate_held_out(histories[mine], targets[mine], run.job.shape.max_history)
        candidates, batch = _candidates(run, batch, start)
        users_PD, items_CD, targets_P = _forward(run, batch, candidates)
        loss = softmax_loss(
            users_PD, items_CD, targets_P, run.job.model.temperature, _log_q(run, candidates)
        )
        ranks = target_ranks(users_PD, items_CD, targets_P).cpu().double()
        gains = torch.where(ranks < 10, 1 / torch.log2(ranks + 2), 0.0)
        count = len(targets_P)
        sums += torch.tensor([loss.item() * count, gains.sum().item(), count], dtype=torch.float64)
    return _average(run, sums)


def _average(run: Run, sums: torch.Tensor) -> dict[str, float]:
    moved = sums.to(run.engine.device)
    torch.distributed.all_reduce(moved)
    loss, gain, count = moved.cpu().tolist()
    return {"valid_loss": loss / count, "valid_ndcg@10": gain / count}


def log_step(run: Run, log: Log, cursor: Cursor, loss: float, speed: float) -> None:
    """Add the mean loss of all ranks to the log; `speed` is in steps a second."""
    mean = torch.tensor([loss], dtype=torch.float64, device=run.engine.device)
    torch.distributed.all_reduce(mean)
    row = {
        "step": cursor.step,
        "epoch": cursor.epoch,
        "loss": mean.item() / run.world_size,
        "learning_rate": run.engine.get_lr()[0],
        "windows_per_second": speed * run.job.training.global_batch_size,
    }
    log.append(row)
    if run.rank == 0 and cursor.step % (10 * LOG_EVERY) == 0:
        left = (run.total_steps - cursor.step) / speed
        print(
            f"step {cursor.step}/{run.total_steps}  loss {row['loss']:.3f}  "
            f"{row['windows_per_second']:.0f} windows/s  {left:.0f} s left",
            flush=True,
        )


def log_epoch(run: Run, log: Log, cursor: Cursor, metrics: dict[str, float]) -> None:
    """Add an epoch's validation to the log."""
    log.append({"step": cursor.step, "epoch": cursor.epoch - 1, **metrics})
    if run.rank == 0:
        found = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"epoch {cursor.epoch}/{run.job.training.epochs} done  {found}", flush=True)

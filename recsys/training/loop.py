"""How it learns: the function every Ray Train worker runs. Read it top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed

from recsys.artifact import Artifact, open_artifact
from recsys.data.collate import collate_held_out
from recsys.models.backbone import load_text_encoder
from recsys.models.build import build_model
from recsys.models.candidates import Candidates, draw_candidates, whole_catalogue
from recsys.models.item_encoder import HybridItemEncoder
from recsys.models.losses import split_loss, target_ranks
from recsys.models.recommender_model import RecommenderModel
from recsys.models.user_encoder import HybridUserEncoder, weigh_halves
from recsys.schema import NO_TARGET, Batch, History
from recsys.training.checkpoint import Log, restore, save
from recsys.training.cursor import Cursor, TrainWindows
from recsys.training.ingest import Ingest, RankBatches
from recsys.training.job import (
    CatalogueInputs,
    TrainJob,
    make_augmenter,
    read_event_weights,
    read_train_counts,
    read_validation,
)
from recsys.training.zero import start_engine

LOG_EVERY = 10
"""Steps between two rows of the log."""
ID_SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""What validation tries as a user vector's `id_share` in a hybrid model."""


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


@dataclass(frozen=True)
class Run:
    """What one rank holds while it trains."""

    job: TrainJob
    rank: int
    world_size: int
    engine: Any
    batches: RankBatches
    items: CatalogueInputs
    train_counts: torch.Tensor
    validation: tuple[list[History], list[int]]
    total_steps: int
    targets_a_step: float


def start_run(job: TrainJob) -> Run:
    """Build the model and the engine, and open the data."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)  # one worker a core; more threads would share it
    dataset = open_artifact(job.dataset, "dataset", check=False)
    windows = TrainWindows(
        dataset, job.training.seed, job.training.shuffle_windows, job.training.length_buckets
    )
    total_steps = job.training.epochs * windows.steps(job.training.global_batch_size)
    torch.manual_seed(job.training.seed)
    train_counts = read_train_counts(dataset)
    engine = start_engine(_build(job, train_counts), job.training, total_steps)
    dtype = torch.bfloat16 if job.training.precision == "bf16" else torch.float32
    items = CatalogueInputs(job, dataset, device, dtype)
    return Run(
        job=job,
        rank=rank,
        world_size=world_size,
        engine=engine,
        batches=RankBatches(
            windows=windows,
            batch_size=job.training.global_batch_size,
            rank=rank,
            world_size=world_size,
            event_weights=read_event_weights(job.training, dataset),
            augmenter=make_augmenter(job.training, items),
        ),
        items=items,
        train_counts=train_counts,
        validation=read_validation(dataset, job.training.max_validation_rows, world_size),
        total_steps=total_steps,
        targets_a_step=_targets_a_step(dataset, job.training.global_batch_size / world_size),
    )


def _targets_a_step(dataset: Artifact, windows: float) -> float:
    """Targets that a rank has in a step of so many windows, on average."""
    facts = dataset.manifest.facts
    return max(1.0, windows * facts["train_targets"] / max(1, facts["rows"]["train"]))


def _build(job: TrainJob, train_counts: torch.Tensor) -> RecommenderModel:
    tuned = job.model.tuning != "frozen"
    model = build_model(job.model, job.shape, load_text_encoder(job.model) if tuned else None)
    if isinstance(model.item_encoder, HybridItemEncoder):
        model.item_encoder.train_counts.copy_(train_counts)
    return model


def train_step(run: Run, batch: Batch, cursor: Cursor) -> float:
    """One step on this rank's share of a global batch; returns the rank's loss."""
    # Dropout and negatives follow from the step alone, so that a resumed run repeats them.
    torch.manual_seed(_seed(run, cursor.step))
    run.engine.train()
    candidates, batch = _candidates(run, batch, cursor.step)
    users_PD, items_CD, targets_P = _forward(run, batch, candidates)
    loss = _loss(run, users_PD, items_CD, targets_P, candidates, _weights(run, batch))
    # The mean over this batch, weighed by its targets: one among few counts no more than others.
    run.engine.backward(loss * (len(targets_P) / run.targets_a_step))
    run.engine.step()
    value = loss.item()
    if not np.isfinite(value):
        raise FloatingPointError(
            f"loss is {value} at step {cursor.step}: lower training.learning_rate, or use fp32"
        )
    return value


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


def _loss(
    run: Run,
    users_PD: torch.Tensor,
    items_CD: torch.Tensor,
    targets_P: torch.Tensor,
    candidates: Candidates,
    weights_P: torch.Tensor | None = None,
) -> torch.Tensor:
    log_q_C = None if candidates.log_q is None else candidates.log_q.to(run.engine.device)
    temperature, num_parts = run.job.model.temperature, run.job.model.num_parts
    return split_loss(users_PD, items_CD, targets_P, temperature, log_q_C, weights_P, num_parts)


def _weights(run: Run, batch: Batch) -> torch.Tensor | None:
    if batch.weights is None:
        return None
    return batch.weights[batch.targets != NO_TARGET].to(run.engine.device)


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Loss and NDCG@10 of the validation rows among the step's kind of candidates.

    A hybrid model is left with the share of IDs that does best.
    """
    histories, targets = run.validation
    if not histories:
        return {}
    run.engine.eval()
    user_encoder = run.engine.module.user_encoder
    shares = ID_SHARES if isinstance(user_encoder, HybridUserEncoder) else (None,)
    size, world = run.job.training.global_batch_size, run.world_size
    sums = torch.zeros(2 + len(shares), dtype=torch.float64)
    for start in range(0, len(histories) // world, size):
        mine = slice(run.rank + start * world, run.rank + (start + size) * world, world)
        batch = collate_held_out(histories[mine], targets[mine], run.job.shape.max_history)
        candidates, batch = _candidates(run, batch, start)
        users_PD, items_CD, targets_P = _forward(run, batch, candidates)
        loss = _loss(run, users_PD, items_CD, targets_P, candidates).item() * len(targets_P)
        gains = [_gain(users_PD, items_CD, targets_P, share) for share in shares]
        sums += torch.tensor([len(targets_P), loss, *gains], dtype=torch.float64)
    loss, *gains = _means(run, sums)
    best = int(np.argmax(gains))
    if isinstance(user_encoder, HybridUserEncoder):
        user_encoder.id_share.fill_(ID_SHARES[best])
    return {"valid_loss": loss, "valid_ndcg@10": gains[best]}


def _gain(
    users_PD: torch.Tensor, items_CD: torch.Tensor, targets_P: torch.Tensor, share: float | None
) -> float:
    """Sum of the NDCG@10 of all rows, for a hybrid model at this share of IDs."""
    weighed_PD = users_PD if share is None else weigh_halves(users_PD, share)
    ranks_P = target_ranks(weighed_PD, items_CD, targets_P).cpu().double()
    return torch.where(ranks_P < 10, 1 / torch.log2(ranks_P + 2), 0.0).sum().item()


def _means(run: Run, sums: torch.Tensor) -> list[float]:
    """Of sums over rows, the first of which counts them, the means over all ranks' rows."""
    moved = sums.to(run.engine.device)
    torch.distributed.all_reduce(moved)
    count, *totals = moved.cpu().tolist()
    return [total / count for total in totals]


def log_step(
    run: Run, log: Log, cursor: Cursor, loss: float, speed: float, wait_share: float
) -> None:
    """Add the ranks' mean loss and data wait to the log; `speed` is in steps a second."""
    sums = torch.tensor([loss, wait_share], dtype=torch.float64, device=run.engine.device)
    torch.distributed.all_reduce(sums)
    mean_loss, mean_wait = (sums / run.world_size).tolist()
    row = {
        "step": cursor.step,
        "epoch": cursor.epoch,
        "loss": mean_loss,
        "learning_rate": run.engine.get_lr()[0],
        "windows_per_second": speed * run.job.training.global_batch_size,
        "data_wait_share": mean_wait,
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

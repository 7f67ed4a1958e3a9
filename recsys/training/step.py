"""What a training step and validation have in common: a batch, scored, and its loss.

Shapes: P positions with a target, C candidates, K negatives of a head, D embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed

from recsys.models.candidates import (
    Candidates,
    draw_candidates,
    draw_uniform,
    own_items,
    targets_of,
    whole_catalogue,
)
from recsys.models.heads import NUM_NEGATIVES, Predicted, heads_loss
from recsys.models.losses import split_loss
from recsys.schema import NO_TARGET, Batch
from recsys.training.ranks import gather
from recsys.training.run import Run
from recsys.training.speed import Work, work_of

Vectors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
TINY = torch.finfo(torch.float64).tiny
"""In place of 0 where a sum of weights divides."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch of rows of the candidates, on the device, and the vectors to score it by.

    `weight` is the sum of its targets' weights, and `share` is what its loss counts in a step.
    `draws` gives what this rank alone draws.
    """

    batch: Batch
    candidates: Candidates
    users_PD: torch.Tensor
    items_CD: torch.Tensor
    targets_P: torch.Tensor
    draws: torch.Generator
    weight: float
    share: float
    work: Work


def score(run: Run, batch: Batch, step: int) -> Scored:
    """Draw the step's candidates and encode users and items. Every rank must call it."""
    [scored] = score_parts(run, [batch], step)
    return scored


def score_parts(run: Run, parts: list[Batch], step: int) -> Iterator[Scored]:
    """The same for a batch in parts; each is encoded when it is asked for.

    All have the candidates of the whole, so that gradients add up to those of the whole batch.
    """
    targets = _targets_of_all(run, parts)
    draws = torch.Generator().manual_seed(run.seed(step))
    weights = [weight_of(part) for part in parts]
    # The mean over this batch, weighed by its targets: one among few counts no more than others.
    whole = sum(len(targets_of(part)) for part in parts) / run.targets_a_step
    for part, weight in zip(parts, weights, strict=True):
        candidates, batch = _candidates(run, part, step, targets)
        batch = move(batch, run.engine.device)
        vectors: Vectors = run.engine(
            batch, run.items.of(candidates.item_indexes, run.rewording(step))
        )
        share = whole * weight / max(sum(weights), TINY)
        work = work_of(part, candidates, run.items.num_tokens(candidates.item_indexes))
        yield Scored(batch, candidates, *vectors, draws, weight, share, work)


def split(batch: Batch, count: int) -> list[Batch]:
    """So many micro-batches of its rows, in order, each as wide as its longest history.

    Where the rows do not suffice, the last have one row without targets: every rank takes part in
    every micro-batch.
    """
    if count == 1:
        return [batch]
    rows = torch.arange(len(batch.lengths)).tensor_split(count)
    return [_rows_of(batch, some) if len(some) else _without_targets(batch) for some in rows]


def _rows_of(batch: Batch, rows: torch.Tensor) -> Batch:
    width = int(batch.lengths[rows].max())
    columns = (getattr(batch, field.name) for field in fields(Batch))
    return Batch(*(None if c is None else _cut(c[rows], width) for c in columns))  # pyright: ignore


def _cut(column: torch.Tensor, width: int) -> torch.Tensor:
    """All but `lengths` have places, and keep so many."""
    return column[:, :width].contiguous() if column.ndim > 1 else column


def _without_targets(batch: Batch) -> Batch:
    first = _rows_of(batch, torch.zeros(1, dtype=torch.int64))
    return replace(first, targets=torch.full_like(first.targets, NO_TARGET))


def weight_of(batch: Batch) -> float:
    """The sum of the weights of a batch's targets; their number where each weighs 1."""
    if batch.weights is None:
        return float(len(targets_of(batch)))
    return batch.weights[batch.targets != NO_TARGET].sum().item()


def mean_over_ranks(losses: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """The weighted mean of all ranks' losses, on the device; 0 where no weight is above 0."""
    loss = torch.stack(losses).detach().double()
    weight = torch.tensor(weights, dtype=torch.float64).to(loss.device, non_blocking=True)
    sums = torch.stack([(loss * weight).sum(), weight.sum()])
    torch.distributed.all_reduce(sums)
    return sums[0] / sums[1].clamp_min(TINY)


def _targets_of_all(run: Run, parts: list[Batch]) -> torch.Tensor | None:
    if not run.job.training.num_negatives:
        return None
    return gather(torch.cat([targets_of(part) for part in parts]), run.engine.device)


def _candidates(
    run: Run, batch: Batch, step: int, targets: torch.Tensor | None
) -> tuple[Candidates, Batch]:
    if targets is None:
        return whole_catalogue(run.job.shape.num_items), batch
    negatives = run.job.training.num_negatives
    generator = torch.Generator().manual_seed(run.shared_seed(step))
    return draw_candidates(batch, run.train_counts, negatives, generator, targets)


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device."""
    tensors = [getattr(batch, field.name) for field in fields(Batch)]
    return Batch(*(None if t is None else t.to(device) for t in tensors))  # pyright: ignore


def sequence_loss(run: Run, scored: Scored, weighted: bool) -> torch.Tensor:
    """Softmax over the candidates; `weighted` by the targets' events where the batch says so."""
    batch, log_q_C = scored.batch, scored.candidates.log_q
    weights_P = None
    if weighted and batch.weights is not None:
        weights_P = batch.weights[batch.targets != NO_TARGET]
    return split_loss(
        scored.users_PD,
        scored.items_CD,
        scored.targets_P,
        run.model.temperature(),
        None if log_q_C is None else log_q_C.to(run.engine.device),
        weights_P,
        run.job.model.num_parts,
        own_items(batch) if run.job.training.mask_history_negatives else None,
        run.job.training.loss_chunk,
    )


def predict(run: Run, scored: Scored) -> Predicted | None:
    """What the model's heads say of the batch; None where it has none."""
    if run.model.heads is None:
        return None
    device, candidates = run.engine.device, scored.candidates
    negatives_PK = draw_uniform(candidates, len(scored.targets_P), NUM_NEGATIVES, scored.draws)
    return run.model.heads(
        (scored.users_PD, scored.items_CD, scored.targets_P),
        candidates.item_indexes.to(device),
        scored.batch,
        negatives_PK.to(device),
    )


def training_loss(run: Run, scored: Scored) -> torch.Tensor:
    """The sequence loss and those of the heads, each a mean over the batch."""
    loss, predicted = sequence_loss(run, scored, weighted=True), predict(run, scored)
    if predicted is None:
        return loss
    training = run.job.training
    return loss + heads_loss(predicted, training.rating_weight, training.probability_weight)

"""What a training step and validation have in common: a batch, scored, and its loss.

Shapes: P positions with a target, C candidates, K negatives of a head, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

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


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch of rows of the candidates, on the device, and the vectors to score it by."""

    step: int
    batch: Batch
    candidates: Candidates
    users_PD: torch.Tensor
    items_CD: torch.Tensor
    targets_P: torch.Tensor


def score(run: Run, batch: Batch, step: int) -> Scored:
    """Draw the step's candidates and encode users and items. Every rank must call it."""
    candidates, batch = _candidates(run, batch, step)
    batch = _moved(batch, run.engine.device)
    vectors = run.engine(batch, run.items.of(candidates.item_indexes))
    return Scored(step, batch, candidates, *vectors)


def _candidates(run: Run, batch: Batch, step: int) -> tuple[Candidates, Batch]:
    negatives = run.job.training.num_negatives
    if not negatives:
        return whole_catalogue(run.job.shape.num_items), batch
    targets = gather(targets_of(batch), run.engine.device)
    generator = torch.Generator().manual_seed(run.shared_seed(step))
    return draw_candidates(batch, run.train_counts, negatives, generator, targets)


def _moved(batch: Batch, device: torch.device) -> Batch:
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
    generator = torch.Generator().manual_seed(run.seed(scored.step))
    negatives_PK = draw_uniform(candidates, len(scored.targets_P), NUM_NEGATIVES, generator)
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

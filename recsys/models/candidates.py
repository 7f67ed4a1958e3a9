"""The items a training step scores: the whole catalogue, or all ranks' targets and a sample.

Shapes: C candidates, B users, H positions, P positions with a target, K drawn for each, N items in
the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from recsys.models.losses import OwnItems
from recsys.schema import NO_TARGET, Batch

MASKED = float("inf")
"""log q of a candidate that is no negative: its logit becomes minus infinity."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """`item_indexes` (C,) are the items encoded in this step, each once.

    `log_q` (C,) is the log probability that an item was drawn, and `uniform` are the candidates'
    rows that were drawn uniformly, a row as often as it was drawn; both are None where all items
    are there.
    """

    item_indexes: torch.Tensor
    log_q: torch.Tensor | None = None
    uniform: torch.Tensor | None = None


def whole_catalogue(num_items: int) -> Candidates:
    """Every item; a batch's item indexes are then already rows of the candidates."""
    return Candidates(torch.arange(num_items))


def draw_candidates(
    batch: Batch,
    train_counts: torch.Tensor,
    num_negatives: int,
    generator: torch.Generator,
    targets: torch.Tensor | None = None,
) -> tuple[Candidates, Batch]:
    """Candidates of one batch, and the batch with rows of the candidates in place of item indexes.

    Negatives are `targets` and `num_negatives` uniform draws. `targets` are those of all ranks, as
    often as they occur, among them the batch's own; None where there is one rank. Ranks whose
    generators stand alike have the same negatives. logQ corrects for how likely each is (Yi et al.
    2019, doi 10.1145/3298689.3346996): with n targets of popularity p and m uniform draws with
    replacement among N items, an item is missing with probability (1 - p)^n (1 - 1 / N)^m. Items
    of histories are encoded too but are no negatives.
    """
    num_items = len(train_counts)
    sampled = torch.randint(num_items, (num_negatives,), generator=generator)
    if targets is None:
        targets = targets_of(batch)
    negatives = torch.cat([targets, sampled]).unique()
    rows = torch.cat([negatives, batch.item_indexes.flatten()]).unique()
    missed = (1 - 1 / num_items) ** num_negatives
    log_q = _log_drawn(train_counts[rows], train_counts.sum(), len(targets), missed)
    log_q[~torch.isin(rows, negatives)] = MASKED
    return Candidates(rows, log_q, torch.searchsorted(rows, sampled)), _renumber(batch, rows)


def targets_of(batch: Batch) -> torch.Tensor:
    """(P,) the batch's targets, row by row."""
    return batch.targets[batch.targets != NO_TARGET]


def own_items(batch: Batch) -> OwnItems:
    """All items of each row's window, its history's and its targets, for each position."""
    places_H = torch.arange(batch.item_indexes.shape[1], device=batch.lengths.device)
    history_BH = batch.item_indexes.where(places_H < batch.lengths[:, None], NO_TARGET)
    rows_BK = torch.cat([history_BH, batch.targets], dim=1)
    return OwnItems(rows_BK, (batch.targets != NO_TARGET).nonzero()[:, 0])


def draw_uniform(
    candidates: Candidates, num_positions: int, count: int, generator: torch.Generator
) -> torch.Tensor:
    """(P, K) rows of the candidates, each of a uniformly drawn item.

    Where the candidates are a sample, they are drawn once more from its uniform part.
    """
    pool = candidates.uniform
    size = len(candidates.item_indexes if pool is None else pool)
    drawn = torch.randint(size, (num_positions, count), generator=generator)
    return drawn if pool is None else pool[drawn]


def _log_drawn(
    counts: torch.Tensor, total: torch.Tensor, num_targets: int, missed_by_sample: float
) -> torch.Tensor:
    popularity = counts.double() / total.clamp_min(1)
    missing = (1 - popularity) ** num_targets * missed_by_sample
    return (1 - missing).clamp_min(1e-12).log().float()


def _renumber(batch: Batch, rows: torch.Tensor) -> Batch:
    has_target = batch.targets != NO_TARGET
    known = torch.where(has_target, batch.targets, rows[0])
    targets = torch.where(has_target, torch.searchsorted(rows, known), NO_TARGET)
    return replace(
        batch, item_indexes=torch.searchsorted(rows, batch.item_indexes), targets=targets
    )

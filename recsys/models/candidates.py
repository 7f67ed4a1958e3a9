"""The items a training step scores: the whole catalogue, or the batch's targets and a sample.

Shapes: C candidates, B users, H positions, N items in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from recsys.schema import NO_TARGET, Batch

MASKED = float("inf")
"""log q of a candidate that is no negative: its logit becomes minus infinity."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """`item_indexes` (C,) are the items encoded in this step, each once.

    `log_q` (C,) is the log probability that an item was drawn, or None where all items are there.
    """

    item_indexes: torch.Tensor
    log_q: torch.Tensor | None = None


def whole_catalogue(num_items: int) -> Candidates:
    """Every item; a batch's item indexes are then already rows of the candidates."""
    return Candidates(torch.arange(num_items))


def draw_candidates(
    batch: Batch, train_counts: torch.Tensor, num_negatives: int, generator: torch.Generator
) -> tuple[Candidates, Batch]:
    """Candidates of one batch, and the batch with rows of the candidates in place of item indexes.

    Negatives are the batch's targets and `num_negatives` uniform draws. logQ corrects for how
    likely each is (Yi et al. 2019, doi 10.1145/3298689.3346996): with n targets of popularity p
    and m uniform draws with replacement among N items, an item is missing with probability
    (1 - p)^n (1 - 1 / N)^m. Items of histories are encoded too but are no negatives.
    """
    num_items = len(train_counts)
    sampled = torch.randint(num_items, (num_negatives,), generator=generator)
    targets = batch.targets[batch.targets != NO_TARGET]
    negatives = torch.cat([targets, sampled]).unique()
    rows = torch.cat([negatives, batch.item_indexes.flatten()]).unique()
    missed = (1 - 1 / num_items) ** num_negatives
    log_q = _log_drawn(train_counts[rows], train_counts.sum(), len(targets), missed)
    log_q[~torch.isin(rows, negatives)] = MASKED
    return Candidates(rows, log_q), _renumber(batch, rows)


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

"""What a user's and an item's vector tell beside their score: a value, and a probability.

Heads read the vectors of the sequence loss and pass no gradient back to them, so that retrieval is
what it is without them: a loss of few rated events would pull at vectors that all events made.
The cost is that a head learns what these vectors hold and no more.

Shapes: X pairs (any shape), P positions with a target, L items a position (its target and K
negatives), B users, H positions, C candidates, N items of the training catalogue, D vector size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from recsys.schema import NO_TARGET, Batch

RATING, PROBABILITY = "rating", "probability"
PREFIX = "heads."
"""What the names of the heads' tensors in a model begin with."""
NUM_NEGATIVES = 4
"""Uniform negatives beside each true target. A probability is that of the target among five items
of which four are drawn uniformly: the prior is 1 / 5, and the probability among n uniformly drawn
items beside it has the same logit less log(n / 4)."""
HIDDEN = 64
ITEM_PRIOR, USER_PRIOR = 25.0, 10.0
"""Events that an item's and a user's offset are shrunk by (Koren 2010, doi
10.1145/1644873.1644874, typical values on Netflix)."""


@dataclass(frozen=True)
class HeadSize:
    """`num_parts` are the parts that vectors of size `embedding_size` consist of."""

    embedding_size: int
    num_parts: int
    num_items: int


@dataclass(frozen=True)
class ValueFacts:
    """Mean and standard deviation of the training values, and (N,) shrunk offsets of items.

    An item's offset is its mean above the mean of all, in standard deviations.
    """

    mean: float
    scale: float
    item_offsets: torch.Tensor


class Predicted(NamedTuple):
    """What heads say of a batch; None where there is no such head. ZeRO-3 looks into tuples alone.

    `errors_P` are a value's errors in standard deviations, for targets with a known value alone.
    `logits_PL` begin with the true target; `counts_PL` is False for a negative that is the target.
    """

    errors_P: torch.Tensor | None = None
    logits_PL: torch.Tensor | None = None
    counts_PL: torch.Tensor | None = None


class Heads(nn.Module):
    """The heads of a model, of which at least one is there."""

    def __init__(self, names: Sequence[str], size: HeadSize) -> None:
        super().__init__()
        self.rating = RatingHead(size) if RATING in names else None
        self.probability = ProbabilityHead(size) if PROBABILITY in names else None

    def forward(
        self,
        vectors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        item_indexes_C: torch.Tensor,
        batch: Batch,
        negatives_PK: torch.Tensor,
    ) -> Predicted:
        """What heads say of the pairs of a step.

        `vectors` are the model's users (P, D), items (C, D) and targets (P,). Targets, negatives
        and the batch's items are rows of the candidates; `item_indexes_C` says which items these
        are.
        """
        users_PD, items_CD, targets_P = vectors[0].detach(), vectors[1].detach(), vectors[2]
        errors_P = logits_PL = counts_PL = None
        if self.rating is not None:
            known_P = known_targets(batch)
            rows_P = targets_P[known_P]
            offsets_BH = self.rating.user_offsets(batch, item_indexes_C)
            offsets_P = offsets_BH[batch.targets != NO_TARGET][known_P]
            values_P = self.rating(
                users_PD[known_P], items_CD[rows_P], item_indexes_C[rows_P], offsets_P
            )
            errors_P = (values_P - _target_values(batch)[known_P]) / self.rating.scale.float()
        if self.probability is not None:
            rows_PL = torch.cat([targets_P[:, None], negatives_PK], dim=1)
            logits_PL = self.probability(
                users_PD[:, None], items_CD[rows_PL], item_indexes_C[rows_PL]
            )
            counts_PL = rows_PL != targets_P[:, None]
            counts_PL[:, 0] = True
        return Predicted(errors_P, logits_PL, counts_PL)


def names_of_heads(tensors: Iterable[str]) -> list[str]:
    """The heads to which tensors of these names belong."""
    parts = {name.split(".")[1] for name in tensors if name.startswith(PREFIX)}
    return sorted(parts)


def known_targets(batch: Batch) -> torch.Tensor:
    """(P,) whether a target's value is known."""
    return ~_target_values(batch).isnan()


def _target_values(batch: Batch) -> torch.Tensor:
    assert batch.target_values is not None
    return batch.target_values[batch.targets != NO_TARGET]


class RatingHead(nn.Module):
    """The value that a user gives to an item, in the data's own unit.

    mean + scale * (offset of the item + offset of the user + what a small network adds), so that
    it begins as the baseline it has to beat and learns the rest. A user's offset is that of the
    values in the history up to the position.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    item_offsets: torch.Tensor

    def __init__(self, size: HeadSize) -> None:
        super().__init__()
        self._num_parts = size.num_parts
        self.network = _network(3 * size.embedding_size + 2)
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("item_offsets", torch.zeros(size.num_items))

    def set_facts(self, facts: ValueFacts) -> None:
        """Take over what the training values are like."""
        self.mean.fill_(facts.mean)
        self.scale.fill_(facts.scale)
        self.item_offsets.copy_(facts.item_offsets)

    def forward(
        self,
        users_XD: torch.Tensor,
        items_XD: torch.Tensor,
        item_indexes_X: torch.Tensor,
        user_offsets_X: torch.Tensor,
    ) -> torch.Tensor:
        """(X,) float32 values; an index outside 0 .. N-1 is an item without training events."""
        users, items = unit_parts(users_XD, self._num_parts), unit_parts(items_XD, self._num_parts)
        items_X = self.item_offset(item_indexes_X)
        offsets = torch.stack([items_X, user_offsets_X], dim=-1)
        more_X = _run(self.network, torch.cat([users, items, users * items, offsets], dim=-1))
        return self.baseline(items_X, user_offsets_X) + self.scale.float() * more_X

    def baseline(self, item_offsets_X: torch.Tensor, user_offsets_X: torch.Tensor) -> torch.Tensor:
        """(X,) mean of all values plus the offsets of item and user."""
        return self.mean.float() + self.scale.float() * (item_offsets_X + user_offsets_X)

    def item_offset(self, item_indexes_X: torch.Tensor) -> torch.Tensor:
        """(X,) shrunk offsets of items in standard deviations; 0 for unknown ones."""
        return _look_up(self.item_offsets, item_indexes_X).float()

    def user_offsets(self, batch: Batch, item_indexes_C: torch.Tensor) -> torch.Tensor:
        """(B, H) shrunk offset of each user by the values up to each position; 0 without any.

        The batch's items are rows of `item_indexes_C`.
        """
        if batch.values is None:
            return torch.zeros(batch.item_indexes.shape, device=batch.item_indexes.device)
        offsets_BH = self.item_offset(item_indexes_C[batch.item_indexes])
        above_BH = (batch.values - self.mean.float()) / self.scale.float() - offsets_BH
        known_BH = ~batch.values.isnan()
        total_BH = torch.where(known_BH, above_BH, 0.0).cumsum(dim=1)
        return total_BH / (known_BH.cumsum(dim=1) + USER_PRIOR)


class ProbabilityHead(nn.Module):
    """The probability that an item is the user's next, and not one drawn uniformly.

    See `NUM_NEGATIVES` for what it is a probability of. `calibration` are slope and offset of
    Platt's scaling, which validation sets.
    """

    item_counts: torch.Tensor
    calibration: torch.Tensor

    def __init__(self, size: HeadSize) -> None:
        super().__init__()
        self._num_parts = size.num_parts
        self.network = _network(size.embedding_size + size.num_parts + 1, -math.log(NUM_NEGATIVES))
        self.register_buffer("item_counts", torch.zeros(size.num_items, dtype=torch.int64))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def forward(
        self, users_XD: torch.Tensor, items_XD: torch.Tensor, item_indexes_X: torch.Tensor
    ) -> torch.Tensor:
        """(X,) float32 logits, not calibrated; index outside 0 .. N-1: no training events."""
        products = unit_parts(users_XD, self._num_parts) * unit_parts(items_XD, self._num_parts)
        cosines = products.unflatten(-1, (self._num_parts, -1)).sum(-1)
        popularity = self.log_popularity(item_indexes_X)[..., None]
        return _run(self.network, torch.cat([products, cosines, popularity], dim=-1))

    def log_popularity(self, item_indexes_X: torch.Tensor) -> torch.Tensor:
        """(X,) log of how often an item is taken, in times of the mean over items."""
        return (self.shares(item_indexes_X) * len(self.item_counts)).log()

    def shares(self, item_indexes_X: torch.Tensor) -> torch.Tensor:
        """(X,) float32 shares of training events, of which each item has one more."""
        counts_X = _look_up(self.item_counts, item_indexes_X) + 1
        return counts_X / (self.item_counts.sum() + len(self.item_counts))

    def probabilities(self, logits_X: torch.Tensor) -> torch.Tensor:
        """(X,) calibrated probabilities of logits."""
        slope, offset = self.calibration.to(logits_X.dtype)
        return (slope * logits_X + offset).sigmoid()


def heads_loss(
    predicted: Predicted, rating_weight: float, probability_weight: float
) -> torch.Tensor:
    """Weighted sum of squared errors and binary cross entropies, each a mean over a batch."""
    losses: list[torch.Tensor] = []
    if predicted.errors_P is not None:
        errors_P = predicted.errors_P
        losses.append(rating_weight * errors_P.square().sum() / max(1, len(errors_P)))
    if predicted.logits_PL is not None and predicted.counts_PL is not None:
        logits_X, labels_X = labelled(predicted)
        entropies_X = F.binary_cross_entropy_with_logits(logits_X, labels_X, reduction="sum")
        losses.append(probability_weight * entropies_X / max(1, len(logits_X)))
    return torch.stack(losses).sum()


def labelled(predicted: Predicted) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (X,) of all pairs that count, and 1 where the item is the true target, else 0."""
    assert predicted.logits_PL is not None
    assert predicted.counts_PL is not None
    labels_PL = torch.zeros_like(predicted.logits_PL)
    labels_PL[:, 0] = 1
    return predicted.logits_PL[predicted.counts_PL], labels_PL[predicted.counts_PL]


def fit_calibration(logits_X: torch.Tensor, labels_X: torch.Tensor) -> torch.Tensor:
    """(2,) float64 slope and offset after which the logits' probabilities fit the labels best.

    Platt 1999, "Probabilistic outputs for support vector machines", with the smoothed labels given
    there, so that separable data give finite numbers.
    """
    logits_X, positive_X = logits_X.double(), labels_X > 0.5
    num_positive, num_negative = positive_X.sum().double(), (~positive_X).sum().double()
    smooth_X = torch.where(
        positive_X, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2)
    )
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64, device=logits_X.device)
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=100,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scaled_X = weights[0] * logits_X + weights[1]
        value = F.binary_cross_entropy_with_logits(scaled_X, smooth_X)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore
    return weights.detach()


def unit_parts(vectors_XD: torch.Tensor, num_parts: int) -> torch.Tensor:
    """(X, D) float32: each part with length 1, or 0, whatever the parts weigh in the score."""
    parts = vectors_XD.float().unflatten(-1, (num_parts, -1))
    return F.normalize(parts, dim=-1).flatten(-2)


def _network(size: int, start: float = 0.0) -> nn.Sequential:
    """From so many features to one number, which is `start` at first."""
    last = nn.Linear(HIDDEN, 1)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, start)
    return nn.Sequential(nn.Linear(size, HIDDEN), nn.GELU(), last)


def _run(network: nn.Sequential, features_XF: torch.Tensor) -> torch.Tensor:
    kind = next(network.parameters()).dtype
    return network(features_XF.to(kind)).float()[..., 0]


def _look_up(table_N: torch.Tensor, item_indexes_X: torch.Tensor) -> torch.Tensor:
    """The table's entries, 0 for an index outside it."""
    known_X = (item_indexes_X >= 0) & (item_indexes_X < len(table_N))
    return torch.where(known_X, table_N[item_indexes_X.where(known_X, 0)], 0)

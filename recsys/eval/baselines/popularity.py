"""The same popular items for everyone: of all time, or of the last days of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from recsys.engine.popularity import PopularityRanking
from recsys.engine.recommender import POPULAR, Ranked
from recsys.schema import SECONDS_A_DAY, UNKNOWN_TIME, History


class Popularity:
    """The same popular items for everyone."""

    def __init__(
        self, train_counts: torch.Tensor, filter_seen: bool, removed: torch.Tensor | None = None
    ) -> None:
        self._ranking = PopularityRanking(train_counts, removed)
        self._filter_seen = filter_seen

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The most popular items, without seen ones where the protocol filters them."""
        rows = zip(histories, top_k, excluded, strict=True)
        return [self._rank_one(history, k, list(out)) for history, k, out in rows]

    def _rank_one(self, history: History, top_k: int, excluded: list[int]) -> Ranked:
        seen = history.item_indexes.tolist() if self._filter_seen else []
        return Ranked(*self._ranking.top(top_k, excluded + seen), POPULAR)


def recent_counts(
    item_indexes: np.ndarray, timestamps: np.ndarray, num_items: int, days: float = 7
) -> torch.Tensor | None:
    """(N,) events of each item in the last `days` days before the newest event, which counts too.

    An event exactly `days` days older than the newest is outside. Less than one event's worth of
    all-time share is added, so that items with equal counts, such as 0, come by all-time counts.

    Args:
        item_indexes: (E,) the item of each training event.
        timestamps: (E,) Unix seconds; events of unknown time are in no window.
        num_items: N.
        days: length of the window.

    Returns:
        None where no time is known.
    """
    known = timestamps != UNKNOWN_TIME
    if not known.any():
        return None
    since = timestamps[known].max() - days * SECONDS_A_DAY
    recent = np.bincount(item_indexes[known & (timestamps > since)], minlength=num_items)
    ever = np.bincount(item_indexes, minlength=num_items)
    return torch.from_numpy(recent + ever / (len(item_indexes) + 1))

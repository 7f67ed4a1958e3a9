"""From scores of all items to ranked lists: what every baseline that learns has in common.

Shapes: B histories, N items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import MODEL, Ranked
from recsys.eval.baselines.popularity import Popularity
from recsys.index.item_index import popularity_order
from recsys.schema import History

CELLS = 1 << 22
"""Scores in memory at once: 16 MiB of float32 a matrix."""


class Scorer(Protocol):
    """What a baseline learned, asked about all items."""

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) finite scores, more is better; no history is empty."""
        ...


class ScoringRanker:
    """Ranks all items by a scorer.

    Equal scores come with more training events first, then in index order. Removed items are left
    out, and so are those of the history with `filter_seen`. An empty history gets popular items.
    """

    def __init__(self, scorer: Scorer, catalogue: Catalogue, filter_seen: bool) -> None:
        self._scorer = scorer
        self._removed = catalogue.removed.numpy()
        self._order = popularity_order(catalogue.train_counts).numpy()
        self._popularity = Popularity(catalogue.train_counts, filter_seen, catalogue.removed)
        self._filter_seen = filter_seen

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The best items for each history; popular ones where the history is empty."""
        ranked = self._popularity.rank(histories, top_k, excluded)
        answered = [row for row, history in enumerate(histories) if len(history)]
        for rows in slices(answered, len(self._order)):
            scores = self._scorer.scores([histories[row] for row in rows])
            for row, scores_N in zip(rows, scores, strict=True):
                ranked[row] = self._trim(scores_N, histories[row], top_k[row], excluded[row])
        return ranked

    def _trim(
        self, scores_N: np.ndarray, history: History, top_k: int, excluded: Sequence[int]
    ) -> Ranked:
        left = np.where(self._removed, -np.inf, scores_N)
        left[list(excluded)] = -np.inf
        if self._filter_seen:
            left[history.item_indexes] = -np.inf
        items = best(left, self._order, top_k)
        return Ranked(items.tolist(), left[items].tolist(), MODEL)


def best(scores_N: np.ndarray, order_N: np.ndarray, top_k: int) -> np.ndarray:
    """At most `top_k` items by score, most first, ties as in `order_N`; none of minus infinity."""
    placed = scores_N[order_N]
    top_k = min(top_k, len(placed))
    last = np.partition(placed, -top_k)[-top_k]
    above, level = np.flatnonzero(placed > last), np.flatnonzero(placed == last)
    places = np.sort(np.concatenate([above, level[: top_k - len(above)]]))
    places = places[placed[places] > -np.inf]
    return order_N[places[np.argsort(-placed[places], kind="stable")]]


def slices(rows: Sequence[int], width: int) -> Iterator[Sequence[int]]:
    """The rows, as many at once as have `CELLS` cells of a matrix of this width, at least one."""
    size = max(1, CELLS // max(1, width))
    return (rows[start : start + size] for start in range(0, len(rows), size))

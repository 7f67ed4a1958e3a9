"""From what is asked to item indexes in their order: by the model, or by popularity without it.

Shapes: K results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from recsys.engine.catalogue import Catalogue
from recsys.engine.diversity import choose, pool_size
from recsys.engine.popularity import PopularityRanking
from recsys.engine.request import Asked, Query
from recsys.engine.scoring import Scorer
from recsys.index.item_index import ItemIndex

MODEL, POPULAR = "model", "popular"
DEEPER = 4
"""How many times as deep a pool becomes that has too few items of different categories."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Item indexes with scores, best first, where they came from, and whose popular ones."""

    item_indexes: list[int]
    scores: list[float]
    source: str
    segment: str | None = None


class ItemRanking:
    """Ranks all items, or given ones, for histories."""

    def __init__(self, scorer: Scorer, index: ItemIndex, catalogue: Catalogue) -> None:
        self._scorer = scorer
        self._index = index
        self._categories_N = catalogue.codes("category")
        self._popularity = PopularityRanking(catalogue.train_counts, catalogue.removed)

    def best(self, queries: Sequence[Query], asked: Sequence[Asked]) -> list[Ranked]:
        """The `top_k` items of each query, as diverse as it wants them."""
        ranked = self.top(asked, [_depth(query) for query in queries])
        rows = zip(queries, asked, ranked, strict=True)
        return [self._varied(*row) if row[0].is_diverse else row[2] for row in rows]

    def top(self, asked: Sequence[Asked], top_k: Sequence[int]) -> list[Ranked]:
        """The items with the best scores; popular ones where the history is empty."""
        known = [row for row, one in enumerate(asked) if len(one.history)]
        found = self._search([asked[row] for row in known], [top_k[row] for row in known])
        by_row = dict(zip(known, found, strict=True))
        rows = enumerate(zip(asked, top_k, strict=True))
        return [by_row[row] if row in by_row else self._popular(*one) for row, one in rows]

    def sort(self, asked: Asked, items: Sequence[int]) -> Ranked:
        """These items by their scores, each once; of equal scores the more popular one first."""
        if not len(asked.history):
            found = self._popularity.sort(items, asked.segment)
            return Ranked(*found, POPULAR, _name_of_segment(asked))
        by_popularity, _ = self._popularity.sort(items)
        scores_K = self._scorer.score([asked.history], by_popularity)[0]
        scores_K, order = scores_K.sort(descending=True, stable=True)
        return Ranked([by_popularity[place] for place in order], scores_K.tolist(), MODEL)

    def _search(self, asked: list[Asked], top_k: list[int]) -> list[Ranked]:
        if not asked:
            return []
        scores, items = self._scorer.search(
            [one.history for one in asked],
            max(top_k),
            [one.left_out for one in asked],
            [one.allowed for one in asked],
        )
        return [trimmed(i, s, k) for i, s, k in zip(items, scores, top_k, strict=True)]

    def _popular(self, asked: Asked, top_k: int) -> Ranked:
        found = self._popularity.top(top_k, asked.left_out, asked.allowed, asked.segment)
        return Ranked(*found, POPULAR, _name_of_segment(asked))

    def _varied(self, query: Query, asked: Asked, pool: Ranked) -> Ranked:
        """The items of the pool that are answered, or of a deeper one where it has too few."""
        size = _depth(query)
        places = self._choose(query, pool)
        while len(places) < query.top_k and len(pool.item_indexes) == size:
            size *= DEEPER
            [pool] = self.top([asked], [size])
            places = self._choose(query, pool)
        items = [pool.item_indexes[place] for place in places]
        return replace(pool, item_indexes=items, scores=[pool.scores[place] for place in places])

    def _choose(self, query: Query, pool: Ranked) -> list[int]:
        items = np.array(pool.item_indexes, dtype=np.int64)
        return choose(
            np.array(pool.scores),
            self._index.vectors_of(torch.from_numpy(items)).numpy(),
            self._categories_N[items],
            query.top_k,
            query.diversity,
            query.max_per_category,
        )


def trimmed(items_K: torch.Tensor, scores_K: torch.Tensor, top_k: int) -> Ranked:
    """The first `top_k` results of a search that were not excluded."""
    left_K = scores_K > -torch.inf
    items, scores = items_K[left_K][:top_k], scores_K[left_K][:top_k]
    return Ranked(items.tolist(), scores.tolist(), MODEL)


def _depth(query: Query) -> int:
    return pool_size(query.top_k) if query.is_diverse else query.top_k


def _name_of_segment(asked: Asked) -> str | None:
    return None if asked.segment is None else asked.segment.name

"""An index with changes on top: items that were added or got another vector, and removed ones.

What has not changed stays where it is, shared by all versions, so a change costs what is changed
and some arrays of flags, and requests that use the version before are not disturbed.

Shapes: B queries, N items, of which the first O are the index below and M have a vector here; K
results, D embedding size.
"""

from __future__ import annotations

import torch

from recsys.index.best_items import Allowed, Excluded, Found, Ranking
from recsys.index.item_index import ItemIndex

NOT_HERE = -1


class ChangedIndex:
    """An `ItemIndex` over another one of `size` items.

    `items_M` have the vectors `vectors_MD` in place of those below. For `order_N` and `removed_N`
    see `Ranking`; items without changes have the same order as below.
    """

    def __init__(
        self,
        below: ItemIndex,
        size: int,
        items_M: torch.Tensor,
        vectors_MD: torch.Tensor,
        order_N: torch.Tensor,
        removed_N: torch.Tensor,
    ) -> None:
        self._below = below
        self._size = size
        self._items_M = items_M
        self._vectors_MD = vectors_MD
        self._ranking = Ranking(len(order_N), order_N, removed_N)
        self._place_N = torch.full((len(order_N),), NOT_HERE)
        self._place_N[items_M] = torch.arange(len(items_M))
        self._there_N = ~removed_N
        self._unchanged_O = (self._there_N & (self._place_N == NOT_HERE))[:size]

    def changed(
        self,
        items: torch.Tensor,
        vectors: torch.Tensor,
        order_N: torch.Tensor,
        removed_N: torch.Tensor,
    ) -> ChangedIndex:
        """The index with these vectors beside those that were changed before."""
        kept = ~torch.isin(self._items_M, items)
        return ChangedIndex(
            self._below,
            self._size,
            torch.cat([self._items_M[kept], items]),
            torch.cat([self._vectors_MD[kept], vectors]),
            order_N,
            removed_N,
        )

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) a copy of all float32 item vectors."""
        return self.vectors_of(torch.arange(len(self._place_N)))

    def vectors_of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors of items; see `ItemIndex`."""
        places = self._place_N[item_indexes]
        is_here = places != NOT_HERE
        found = self._below.vectors_of(item_indexes.where(~is_here, 0)).clone()
        found[is_here] = self._vectors_MD[places[is_here]]
        return found

    def search(
        self,
        queries_BD: torch.Tensor,
        top_k: int,
        excluded: Excluded,
        allowed: Allowed | None = None,
    ) -> Found:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        masks = allowed or [None] * len(excluded)
        below = [[item for item in items if item < self._size] for items in excluded]
        unchanged = [
            self._unchanged_O if mask is None else self._unchanged_O & mask[: self._size]
            for mask in masks
        ]
        scores_BK, items_BK = self._below.search(queries_BD, top_k, below, unchanged)
        scores_BM = queries_BD @ self._vectors_MD.T
        for scores_M, items, mask in zip(scores_BM, excluded, masks, strict=True):
            there_N = self._there_N if mask is None else self._there_N & mask
            barred_M = torch.isin(self._items_M, torch.tensor(items, dtype=torch.int64))
            scores_M.masked_fill_(barred_M | ~there_N[self._items_M], -torch.inf)
        scores = torch.cat([scores_BK, scores_BM], dim=1)
        items = torch.cat([items_BK, self._items_M.expand(len(scores_BM), -1)], dim=1)
        scores, items = self._ranking.settled(scores, items)
        # Items with a vector here stand among the results below too, but not allowed.
        size = min(top_k, len(self._place_N))
        return scores[:, :size], items[:, :size]


def change(
    index: ItemIndex,
    size: int,
    items: torch.Tensor,
    vectors: torch.Tensor,
    order_N: torch.Tensor,
    removed_N: torch.Tensor,
) -> ChangedIndex:
    """An index of `size` items with these vectors (M, D) for these item indexes (M,)."""
    if isinstance(index, ChangedIndex):
        return index.changed(items, vectors, order_N, removed_N)
    return ChangedIndex(index, size, items, vectors, order_N, removed_N)

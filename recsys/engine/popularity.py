"""The most popular items: fallback for users without known history, and baseline in reports."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from recsys.index.item_index import popularity_order
from recsys.index.segment_popularity import Segment


class PopularityRanking:
    """Items by their number of training events, most first; ties in index order.

    Items that are `removed` (N,) are left out.
    """

    def __init__(self, train_counts_N: torch.Tensor, removed_N: torch.Tensor | None = None) -> None:
        counts_N = train_counts_N.double()
        there_N = torch.ones(len(counts_N), dtype=torch.bool) if removed_N is None else ~removed_N
        order = popularity_order(counts_N)
        self._place_N = order.argsort()
        self._there_N = there_N
        self._order = order[there_N[order]]
        self._shares_N = counts_N / counts_N.sum().clamp_min(1)

    def top(
        self,
        top_k: int,
        excluded: list[int],
        allowed_N: torch.Tensor | None = None,
        segment: Segment | None = None,
    ) -> tuple[list[int], list[float]]:
        """Item indexes and their shares of all training events, without `excluded`.

        With a mask only items of it come. With a `segment` its items come first and shares are of
        its events; the others follow with a share of 0.
        """
        left_out = set(excluded)
        order = self._order if allowed_N is None else self._order[allowed_N[self._order]]
        first = self._first(allowed_N, segment)
        head = torch.cat([first, order[: top_k + len(left_out) + len(first)]]).tolist()
        items = [item for item in dict.fromkeys(head) if item not in left_out][:top_k]
        return items, self.shares(items, segment)

    def sort(
        self, items: Sequence[int], segment: Segment | None = None
    ) -> tuple[list[int], list[float]]:
        """These items by their shares, each once; of equal shares the more popular one first."""
        shares = dict(zip(items, self.shares(items, segment), strict=True))
        ranked = sorted(shares, key=lambda i: (-shares[i], int(self._place_N[i])))
        return ranked, [shares[item] for item in ranked]

    def shares(self, items: Sequence[int], segment: Segment | None = None) -> list[float]:
        """Each item's share of all training events, or of those of a segment."""
        if segment is None:
            return self._shares_N[list(items)].tolist()
        known = dict(zip(segment.items.tolist(), segment.shares.tolist(), strict=True))
        return [known.get(item, 0.0) for item in items]

    def _first(self, allowed_N: torch.Tensor | None, segment: Segment | None) -> torch.Tensor:
        """The items of the segment that may be answered."""
        if segment is None:
            return self._order[:0]
        items = segment.items
        kept = self._there_N[items] if allowed_N is None else (self._there_N & allowed_N)[items]
        return items[kept]

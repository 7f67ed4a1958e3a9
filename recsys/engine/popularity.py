"""The most popular items: fallback for users without known history, and baseline in reports."""

from __future__ import annotations

import torch

from recsys.index.item_index import popularity_order


class PopularityRanking:
    """Items by their number of training events, most first; ties in index order.

    Items that are `removed` (N,) are left out.
    """

    def __init__(self, train_counts_N: torch.Tensor, removed_N: torch.Tensor | None = None) -> None:
        counts_N = train_counts_N.double()
        order = popularity_order(counts_N)
        self._order = order if removed_N is None else order[~removed_N[order]]
        self._shares_N = counts_N / counts_N.sum().clamp_min(1)

    def top(self, top_k: int, excluded: list[int]) -> tuple[list[int], list[float]]:
        """Item indexes and their shares of all training events, without `excluded`."""
        left_out = set(excluded)
        head = self._order[: top_k + len(left_out)].tolist()
        items = [item for item in head if item not in left_out][:top_k]
        return items, self._shares_N[items].tolist()

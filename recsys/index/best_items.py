"""The best items by score: what may be found, which of equal scores comes first, and a search by
blocks of items.

Shapes: B queries, N items, M items of a block, C candidates, K results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat

import numpy as np
import torch
import torch.nn.functional as F

Allowed = Sequence[torch.Tensor | None]
"""For each query the (N,) bool mask of the items it may find; None where it may find all."""
Excluded = Sequence[Sequence[int]]
"""For each query the items it may not find."""
Found = tuple[torch.Tensor, torch.Tensor]
"""Scores and item indexes, (B, K) each, best first."""
ScoresOf = Callable[[int, int], torch.Tensor]
"""(B, M) float32 scores of the items from one index up to another, which may be written to."""
SCORES_AT_ONCE = 2**20
"""Four MiB of float32: a block stays in the CPU's cache, and its memory is used again. A million
items and 32 queries at once took twice as long: half of it was the system's handing out pages."""
GROUP = 64
LOWEST = torch.finfo(torch.float32).min


class Ranking:
    """Which items come first among scores: removed ones never, of equal ones the earlier in order.

    `order` (N,) holds all item indexes; by default it is index order. Shops list some articles
    twice with the same words, and then the words cannot tell which one is meant. Items that are
    `removed` (N,) have vectors, since histories hold them, but are never found.
    """

    def __init__(
        self, size: int, order_N: torch.Tensor | None, removed_N: torch.Tensor | None
    ) -> None:
        self.order_N = torch.arange(size) if order_N is None else order_N
        self.removed_N = torch.zeros(size, dtype=torch.bool) if removed_N is None else removed_N
        self._place_N = self.order_N.argsort()
        self._removed = self.removed_N.nonzero()[:, 0]

    def leave_out(
        self,
        scores_BN: torch.Tensor,
        excluded: Excluded,
        allowed: Allowed | None = None,
    ) -> None:
        """Set the scores of removed, of `excluded` and of not allowed items to minus infinity."""
        _LeftOut(self._removed, excluded, allowed).apply(scores_BN, 0)

    def search(
        self,
        scores_of: ScoresOf,
        excluded: Excluded,
        allowed: Allowed | None,
        top_k: int,
    ) -> Found:
        """Scores and item indexes, (B, K) each with K = min(top_k, N), best first.

        It is exact. The largest scores of groups of items, of which the K-th largest is at most the
        K-th best score, tell which groups to look into.
        """
        left_out = _LeftOut(self._removed, excluded, allowed)
        size, count = len(self.order_N), len(excluded)
        top_k = min(top_k, size)
        group = max(1, min(GROUP, size // (2 * max(1, top_k))))
        step = max(GROUP, SCORES_AT_ONCE // max(1, count)) // group * group
        largest: list[torch.Tensor] = []
        found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        floor_B = torch.full((count,), LOWEST)
        for number, start in enumerate(range(0, size, step)):
            scores_BM = scores_of(start, min(start + step, size))
            left_out.apply(scores_BM, start)
            if lacking := -scores_BM.shape[1] % group:
                scores_BM = F.pad(scores_BM, (0, lacking), value=-torch.inf)
            grouped = scores_BM.unflatten(1, (group, -1))
            largest.append(grouped.amax(1))
            if number & (number - 1) == 0:  # after 1, 2, 4, 8 ... blocks: it pays ever less
                floor_B = _floor(torch.cat(largest, dim=1), top_k)
            found.append(_at_least(floor_B, grouped, largest[-1], start))
        rows, items, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        floor_B = _floor(torch.cat(largest, dim=1), top_k)
        kept = scores >= floor_B[rows]
        return self._ranked(rows[kept], items[kept], scores[kept], (count, top_k))

    def top(self, scores_BN: torch.Tensor, top_k: int) -> Found:
        """Scores and item indexes, (B, K) each with K = min(top_k, N), best first."""
        return self.best_of(scores_BN, torch.arange(scores_BN.shape[1]), top_k)

    def best_of(self, scores_BC: torch.Tensor, items_BC: torch.Tensor, top_k: int) -> Found:
        """The best of these candidates, (B, K) each with K = min(top_k, C), best first.

        `items` are (B, C), or (C,) where all queries have the same.
        """
        top_k = min(top_k, scores_BC.shape[1])
        rows, places = (scores_BC >= _floor(scores_BC, top_k)[:, None]).nonzero(as_tuple=True)
        items = items_BC.expand(scores_BC.shape)[rows, places]
        return self._ranked(rows, items, scores_BC[rows, places], (len(scores_BC), top_k))

    def settled(self, scores_BK: torch.Tensor, items_BK: torch.Tensor) -> Found:
        """The same pairs sorted by score and, of one score, by order."""
        by_place = self._place_N[items_BK].argsort(dim=1)
        scores_BK, items_BK = scores_BK.gather(1, by_place), items_BK.gather(1, by_place)
        by_score = scores_BK.argsort(dim=1, descending=True, stable=True)
        return scores_BK.gather(1, by_score), items_BK.gather(1, by_score)

    def _ranked(
        self, rows: torch.Tensor, items: torch.Tensor, scores: torch.Tensor, shape: tuple[int, int]
    ) -> Found:
        """The best of each row, (B, K), from any number of a row; minus infinity fills it up."""
        places = self._place_N[items]
        by_row = torch.from_numpy(np.lexsort((places.numpy(), -scores.numpy(), rows.numpy())))
        rows, items, scores = rows[by_row], items[by_row], scores[by_row]
        starts = torch.searchsorted(rows, torch.arange(shape[0]))
        ranks = torch.arange(len(rows)) - starts[rows]
        kept = ranks < shape[1]
        best_BK = torch.full(shape, -torch.inf, dtype=scores.dtype)
        items_BK = torch.zeros(shape, dtype=torch.int64)
        best_BK[rows[kept], ranks[kept]] = scores[kept]
        items_BK[rows[kept], ranks[kept]] = items[kept]
        return filled_up(best_BK, items_BK, len(self.order_N))


class _LeftOut:
    """What each of B queries may not find."""

    def __init__(
        self,
        removed: torch.Tensor,
        excluded: Excluded,
        allowed: Allowed | None,
    ) -> None:
        self._removed = removed
        counts = [len(items) for items in excluded]
        items = torch.tensor(list(chain.from_iterable(excluded)), dtype=torch.int64)
        rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        self._items, by_item = items.sort()
        self._rows = rows[by_item]
        self._masks = rows_by_mask(allowed or list(repeat(None, len(counts))))

    def apply(self, scores_BM: torch.Tensor, start: int) -> None:
        """Set their scores to minus infinity in a block of the items from `start` on."""
        ends = torch.tensor([start, start + scores_BM.shape[1]])
        first, last = torch.searchsorted(self._removed, ends).tolist()
        scores_BM[:, self._removed[first:last] - start] = -torch.inf
        first, last = torch.searchsorted(self._items, ends).tolist()
        scores_BM[self._rows[first:last], self._items[first:last] - start] = -torch.inf
        for mask_N, rows in self._masks:
            if mask_N is None:
                continue
            barred_M = ~mask_N[start : start + scores_BM.shape[1]]
            if len(rows) == len(scores_BM):
                scores_BM.masked_fill_(barred_M, -torch.inf)
                continue
            for row in rows:
                scores_BM[row].masked_fill_(barred_M, -torch.inf)


def rows_by_mask(allowed: Allowed) -> list[tuple[torch.Tensor | None, list[int]]]:
    """Each mask once with the queries that have it: requests with equal filters share a mask."""
    found: dict[int, tuple[torch.Tensor | None, list[int]]] = {}
    for row, mask_N in enumerate(allowed):
        found.setdefault(id(mask_N), (mask_N, []))[1].append(row)
    return list(found.values())


def num_allowed(mask_N: torch.Tensor) -> int:
    """How many items a mask leaves; removed ones count too."""
    return int(mask_N.count_nonzero())


def filled_up(scores_BK: torch.Tensor, items_BK: torch.Tensor, size: int) -> Found:
    """The same with other items of the `size` in the places of minus infinity, each once."""
    short = (scores_BK == -torch.inf).any(1).nonzero()[:, 0]
    others = torch.arange(min(size, 2 * scores_BK.shape[1]))
    for row in short:
        empty_K = scores_BK[row] == -torch.inf
        left = others[~torch.isin(others, items_BK[row][~empty_K])]
        items_BK[row, empty_K] = left[: int(empty_K.sum())]
    return scores_BK, items_BK


def assembled(parts: Iterable[tuple[list[int], Found]], shape: tuple[int, int], size: int) -> Found:
    """One (B, K) answer, K up to `size` items, of answers to some rows, which may be narrower."""
    scores_BK = torch.full(shape, -torch.inf)
    items_BK = torch.zeros(shape, dtype=torch.int64)
    for rows, (scores, items) in parts:
        scores_BK[rows, : scores.shape[1]] = scores
        items_BK[rows, : items.shape[1]] = items
    return filled_up(scores_BK, items_BK, size)


def _floor(scores_BC: torch.Tensor, top_k: int) -> torch.Tensor:
    """(B,) the K-th largest, but above minus infinity; where there is none, below all numbers."""
    if not 0 < top_k <= scores_BC.shape[1]:
        return torch.full((len(scores_BC),), LOWEST)
    return scores_BC.topk(top_k, dim=1, sorted=False).values.amin(1).clamp_min(LOWEST)


def _at_least(
    floor_B: torch.Tensor, grouped_BGW: torch.Tensor, largest_BW: torch.Tensor, start: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row, item and score of all that are not below their row's floor; W groups of G items."""
    rows, groups = (largest_BW >= floor_B[:, None]).nonzero(as_tuple=True)
    members = grouped_BGW[rows, :, groups]
    pairs, places = (members >= floor_B[rows, None]).nonzero(as_tuple=True)
    items = start + places * grouped_BGW.shape[2] + groups[pairs]
    return rows[pairs], items, members[pairs, places]

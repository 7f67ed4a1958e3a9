"""Searchable item vectors. Knows vectors and rows, nothing of text, users or Ray.

Shapes: B queries, N items, D embedding size, K results.
"""

from __future__ import annotations

from typing import Protocol

import torch
from safetensors.torch import load, save

VECTORS = "vectors.safetensors"


class ItemIndex(Protocol):
    """What the engine needs of an index."""

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) float32 item vectors."""
        ...

    def search(
        self, queries_BD: torch.Tensor, top_k: int, excluded: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each, best first, without each query's `excluded`.

        Where fewer than K items are left, the score is minus infinity.
        """
        ...


class ExactIndex:
    """Every item is scored. Of items with one score, the one earlier in `order` comes first.

    `order` (N,) holds all item indexes; by default it is index order. Shops list some articles
    twice with the same words, and then the words cannot tell which one is meant. Items that are
    `removed` (N,) have vectors, since histories hold them, but are never found.
    """

    def __init__(
        self,
        vectors_ND: torch.Tensor,
        order_N: torch.Tensor | None = None,
        removed_N: torch.Tensor | None = None,
    ) -> None:
        size = len(vectors_ND)
        self._vectors_ND = vectors_ND.contiguous()
        self._order_N = torch.arange(size) if order_N is None else order_N
        self._place_N = self._order_N.argsort()
        self._removed_N = torch.zeros(size, dtype=torch.bool) if removed_N is None else removed_N

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) float32 item vectors."""
        return self._vectors_ND

    @property
    def order(self) -> torch.Tensor:
        """(N,) item indexes, the one preferred among equal scores first."""
        return self._order_N

    @property
    def removed(self) -> torch.Tensor:
        """(N,) whether an item is a tombstone."""
        return self._removed_N

    def search(
        self, queries_BD: torch.Tensor, top_k: int, excluded: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        scores_BN = queries_BD @ self._vectors_ND.T
        scores_BN[:, self._removed_N] = -torch.inf
        for row, items in zip(scores_BN, excluded, strict=True):
            row[items] = -torch.inf
        size = min(top_k, scores_BN.shape[1])
        scores_BK, items_BK = scores_BN.topk(min(size + 1, scores_BN.shape[1]), dim=1)
        tied = scores_BK[:, size - 1] == scores_BK[:, -1]
        if size < scores_BN.shape[1] and tied.any():
            # topk takes any of the items with one score; where that is at the cut, sort them all.
            found = scores_BN[tied][:, self._order_N].sort(dim=1, descending=True, stable=True)
            items_BK[tied] = self._order_N[found.indices[:, : size + 1]]
        return self._settled(scores_BK[:, :size], items_BK[:, :size])

    def _settled(
        self, scores_BK: torch.Tensor, items_BK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put results of one score in order, which topk leaves open."""
        by_place = self._place_N[items_BK].argsort(dim=1)
        scores_BK, items_BK = scores_BK.gather(1, by_place), items_BK.gather(1, by_place)
        by_score = scores_BK.argsort(dim=1, descending=True, stable=True)
        return scores_BK.gather(1, by_score), items_BK.gather(1, by_score)


def save_index(index: ExactIndex) -> bytes:
    """The index as safetensors bytes."""
    return save({"vectors": index.vectors, "order": index.order, "removed": index.removed})


def load_index(content: bytes) -> ExactIndex:
    """The index that `save_index` wrote."""
    tensors = load(content)
    return ExactIndex(tensors["vectors"], tensors["order"], tensors["removed"])

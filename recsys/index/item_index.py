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
    """Every item is scored. Items with one score come in index order."""

    def __init__(self, vectors_ND: torch.Tensor) -> None:
        self._vectors_ND = vectors_ND.contiguous()

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) float32 item vectors."""
        return self._vectors_ND

    def search(
        self, queries_BD: torch.Tensor, top_k: int, excluded: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        scores_BN = queries_BD @ self._vectors_ND.T
        for row, items in zip(scores_BN, excluded, strict=True):
            row[items] = -torch.inf
        size = min(top_k, scores_BN.shape[1])
        scores_BK, items_BK = scores_BN.topk(min(size + 1, scores_BN.shape[1]), dim=1)
        tied = scores_BK[:, size - 1] == scores_BK[:, -1]
        if size < scores_BN.shape[1] and tied.any():
            # topk takes any of the items with one score; where that is at the cut, sort them all.
            in_order = scores_BN[tied].sort(dim=1, descending=True, stable=True)
            items_BK[tied] = in_order.indices[:, : size + 1]
        return _stable(scores_BK[:, :size], items_BK[:, :size])


def _stable(scores_BK: torch.Tensor, items_BK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Order results of one score by item index, which topk leaves open."""
    by_item = items_BK.argsort(dim=1)
    scores_BK, items_BK = scores_BK.gather(1, by_item), items_BK.gather(1, by_item)
    by_score = scores_BK.argsort(dim=1, descending=True, stable=True)
    return scores_BK.gather(1, by_score), items_BK.gather(1, by_score)


def save_index(index: ItemIndex) -> bytes:
    """The index as safetensors bytes."""
    return save({"vectors": index.vectors})


def load_index(content: bytes) -> ExactIndex:
    """The index that `save_index` wrote."""
    return ExactIndex(load(content)["vectors"])

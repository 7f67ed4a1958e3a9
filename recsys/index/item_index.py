"""Searchable item vectors. Knows vectors and rows, nothing of text, users or Ray.

Shapes: B queries, N items, D embedding size, K results, C candidates of a first pass.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from safetensors.torch import load, save

from recsys.index.best_items import (
    Allowed,
    Excluded,
    Found,
    Ranking,
    ScoresOf,
    assembled,
    num_allowed,
    rows_by_mask,
)

VECTORS = "vectors.safetensors"
Precision = Literal["fp32", "bf16", "int8"]
RESCORED = 2
"""Candidates of the first pass for each result that is asked for: four find no more of the best."""
BLOCK = 4_096
FEW = 0.05
"""Share of the items up to which those that a filter leaves are picked out and scored alone. Of a
million, 2% take 11 ms and 5% 24 for one query, where all take 25."""


class ItemIndex(Protocol):
    """What the engine needs of an index."""

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) float32 item vectors; a copy of all where they are stored otherwise."""
        ...

    def vectors_of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors of items given by a tensor of any shape."""
        ...

    def search(
        self,
        queries_BD: torch.Tensor,
        top_k: int,
        excluded: Excluded,
        allowed: Allowed | None = None,
    ) -> Found:
        """Scores and item indexes, (B, K) each, best first, without each query's `excluded`.

        Where a query has a mask in `allowed`, only items of it come. Where fewer than K items are
        left, the score is minus infinity.
        """
        ...


def popularity_order(train_counts_N: torch.Tensor) -> torch.Tensor:
    """(N,) item indexes by training events, most first, ties in index order."""
    return train_counts_N.argsort(descending=True, stable=True)


class ExactIndex:
    """Every item is scored in float32. For `order` and `removed` see `Ranking`."""

    def __init__(
        self,
        vectors_ND: torch.Tensor,
        order_N: torch.Tensor | None = None,
        removed_N: torch.Tensor | None = None,
    ) -> None:
        self._vectors_ND = vectors_ND.contiguous()
        self.ranking = Ranking(len(vectors_ND), order_N, removed_N)

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) float32 item vectors."""
        return self._vectors_ND

    def vectors_of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors of items; see `ItemIndex`."""
        return self._vectors_ND[item_indexes]

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `save_index` writes."""
        ranking = self.ranking
        return {
            "vectors": self._vectors_ND,
            "order": ranking.order_N,
            "removed": ranking.removed_N,
        }

    def search(
        self,
        queries_BD: torch.Tensor,
        top_k: int,
        excluded: Excluded,
        allowed: Allowed | None = None,
    ) -> Found:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        return _search(self, queries_BD, top_k, excluded, allowed)

    def search_all(
        self, queries_BD: torch.Tensor, top_k: int, excluded: Excluded, allowed: Allowed
    ) -> Found:
        """`search` by way of every item's score."""

        def scores_of(start: int, stop: int) -> torch.Tensor:
            return _products(queries_BD, self._vectors_ND[start:stop])

        return self.ranking.search(scores_of, excluded, allowed, top_k)


class Bf16Vectors:
    """Half the memory: item vectors in bfloat16, with 8 bits of mantissa."""

    def __init__(self, vectors_ND: torch.Tensor) -> None:
        self.tensors = {"vectors": vectors_ND.to(torch.bfloat16).contiguous()}

    def first_scores(self, queries_BD: torch.Tensor) -> ScoresOf:
        """float32 scores of blocks of items.

        A product in bfloat16 takes a quarter of the time, but its scores are bfloat16 too: of
        100,000 items 2,700 different scores, too few to tell which come first.
        """
        vectors_ND = self.tensors["vectors"]
        return lambda start, stop: _products_by_block(queries_BD, vectors_ND[start:stop])

    def of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors."""
        return self.tensors["vectors"][item_indexes].float()


class Int8Vectors:
    """A quarter of the memory: whole numbers -127 to 127 and, for each vector, what one stands for.

    The largest element of a vector becomes 127, so the scale is that element over 127.
    """

    def __init__(self, codes_ND: torch.Tensor, scales_N: torch.Tensor) -> None:
        self.tensors = {"codes": codes_ND, "scales": scales_N}

    @classmethod
    def of_floats(cls, vectors_ND: torch.Tensor) -> Int8Vectors:
        """The vectors, each element rounded to the nearest step of its vector."""
        return cls(*_to_int8(vectors_ND))

    def first_scores(self, queries_BD: torch.Tensor) -> ScoresOf:
        """float32 scores of blocks of items, up to a factor that all of a query have in common.

        The query is made int8 too where the CPU multiplies int8 (VNNI): the product takes a third
        of the time of float32 for one query, and a fifth for 32. Elsewhere torch multiplies int8
        in a plain loop, so blocks of items are made float32.
        """
        codes_ND, scales_N = self.tensors["codes"], self.tensors["scales"]
        if not torch.cpu._is_vnni_supported():
            return lambda start, stop: _products_by_block(queries_BD, codes_ND[start:stop]).mul_(
                scales_N[start:stop]
            )
        query_codes_BD, _ = _to_int8(queries_BD)
        return (
            lambda start, stop: (
                torch._int_mm(query_codes_BD, codes_ND[start:stop].T)  # pyright: ignore
                * scales_N[start:stop]
            )
        )

    def of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors."""
        scales = self.tensors["scales"][item_indexes][..., None]
        return self.tensors["codes"][item_indexes].float() * scales


def _products(queries_BD: torch.Tensor, vectors_MD: torch.Tensor) -> torch.Tensor:
    """(B, M) float32, a query's scores side by side: the search for the largest takes 60 times as
    long otherwise. On one thread numpy takes 19 ms for one query and a million items of 128 numbers
    and 110 for 32; torch (MKL on AMD) 54 and 140."""
    if torch.get_num_threads() > 1:
        return queries_BD @ vectors_MD.T
    queries, vectors = queries_BD.numpy(), vectors_MD.numpy()
    if len(queries) == 1:
        return torch.from_numpy(np.einsum("md,d->m", vectors, queries[0]))[None]
    return torch.from_numpy(queries @ vectors.T)


def _products_by_block(queries_BD: torch.Tensor, stored_MD: torch.Tensor) -> torch.Tensor:
    """(B, M) float32 products, so many items made float32 at a time that they stay in cache."""
    blocks = [_products(queries_BD, block.float()) for block in stored_MD.split(BLOCK)]
    return torch.cat(blocks, dim=1)


def _to_int8(vectors_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 codes (N, D) and float32 scales (N,) whose product is nearest to the vectors."""
    scales_N = vectors_ND.abs().amax(dim=1) / 127
    steps_N1 = torch.where(scales_N == 0, 1, scales_N)[:, None]
    return (vectors_ND / steps_N1).round().to(torch.int8), scales_N


class QuantisedIndex:
    """Item vectors in fewer bits, searched in two passes. For `order` and `removed` see `Ranking`.

    The first pass scores every item in the stored format and keeps `RESCORED` candidates for each
    result; the second scores those by the float32 query and their stored vectors. No float32 copy
    is kept, since memory is what this index is for: scores are exact for the rounded items.
    """

    def __init__(
        self,
        stored: Bf16Vectors | Int8Vectors,
        order_N: torch.Tensor | None = None,
        removed_N: torch.Tensor | None = None,
    ) -> None:
        self._stored = stored
        size = len(next(iter(stored.tensors.values())))
        self.ranking = Ranking(size, order_N, removed_N)

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) a float32 copy of all item vectors."""
        return self._stored.of(torch.arange(len(self.ranking.order_N)))

    def vectors_of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors of items; see `ItemIndex`."""
        return self._stored.of(item_indexes)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `save_index` writes."""
        ranking = self.ranking
        return {**self._stored.tensors, "order": ranking.order_N, "removed": ranking.removed_N}

    def search(
        self,
        queries_BD: torch.Tensor,
        top_k: int,
        excluded: Excluded,
        allowed: Allowed | None = None,
    ) -> Found:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        return _search(self, queries_BD, top_k, excluded, allowed)

    def search_all(
        self, queries_BD: torch.Tensor, top_k: int, excluded: Excluded, allowed: Allowed
    ) -> Found:
        """`search` by way of every item's score."""
        first = self._stored.first_scores(queries_BD)
        found = self.ranking.search(first, excluded, allowed, RESCORED * top_k)
        size = min(top_k, len(self.ranking.order_N))
        return rescored(self, queries_BD, found, size)


def _search(
    index: ExactIndex | QuantisedIndex,
    queries_BD: torch.Tensor,
    top_k: int,
    excluded: Excluded,
    allowed: Allowed | None,
) -> Found:
    """`search_all`, and where a filter leaves few items, these alone."""
    most = FEW * len(index.ranking.order_N)
    by_mask = rows_by_mask(allowed or [])
    few = [(mask, rows) for mask, rows in by_mask if mask is not None and num_allowed(mask) <= most]
    masks = allowed or [None] * len(excluded)
    if not few:
        return index.search_all(queries_BD, top_k, excluded, masks)
    apart = {row for _, rows in few for row in rows}
    rest = [row for row in range(len(excluded)) if row not in apart]
    parts = [
        (rows, _search_few(index, queries_BD[rows], top_k, [excluded[row] for row in rows], mask))
        for mask, rows in few
    ]
    if rest:
        bars = [excluded[row] for row in rest], [masks[row] for row in rest]
        parts.append((rest, index.search_all(queries_BD[rest], top_k, *bars)))
    size = len(index.ranking.order_N)
    return assembled(parts, (len(excluded), min(top_k, size)), size)


def _search_few(
    index: ExactIndex | QuantisedIndex,
    queries_BD: torch.Tensor,
    top_k: int,
    excluded: Excluded,
    mask_N: torch.Tensor,
) -> Found:
    """The best of the items of one mask."""
    items_M = (mask_N & ~index.ranking.removed_N).nonzero()[:, 0]
    parts = [_products(queries_BD, index.vectors_of(items)) for items in items_M.split(BLOCK)]
    scores_BM = torch.cat(parts, dim=1)
    for scores_M, items in zip(scores_BM, excluded, strict=True):
        scores_M[torch.isin(items_M, torch.tensor(items, dtype=torch.int64))] = -torch.inf
    return index.ranking.best_of(scores_BM, items_M, top_k)


def rescored(
    index: ExactIndex | QuantisedIndex, queries_BD: torch.Tensor, found: Found, top_k: int
) -> Found:
    """The best of what a first pass found, by the index's vectors."""
    first_BC, items_BC = found
    scores_BC = (index.vectors_of(items_BC) @ queries_BD[:, :, None])[..., 0]
    scores_BC[first_BC == -torch.inf] = -torch.inf
    return index.ranking.best_of(scores_BC, items_BC, top_k)


def make_index(
    vectors_ND: torch.Tensor,
    precision: Precision = "fp32",
    order_N: torch.Tensor | None = None,
    removed_N: torch.Tensor | None = None,
) -> ExactIndex | QuantisedIndex:
    """The index of float32 vectors that stores them in this number format."""
    if precision == "fp32":
        return ExactIndex(vectors_ND, order_N, removed_N)
    stored = Bf16Vectors(vectors_ND) if precision == "bf16" else Int8Vectors.of_floats(vectors_ND)
    return QuantisedIndex(stored, order_N, removed_N)


def save_index(index: ExactIndex | QuantisedIndex) -> bytes:
    """The index as safetensors bytes; names and types of the tensors tell the number format."""
    return save(index.tensors())


def load_index(content: bytes) -> ExactIndex | QuantisedIndex:
    """The index that `save_index` wrote."""
    tensors = load(content)
    order_N, removed_N = tensors["order"], tensors["removed"]
    if "codes" in tensors:
        stored = Int8Vectors(tensors["codes"], tensors["scales"])
        return QuantisedIndex(stored, order_N, removed_N)
    if tensors["vectors"].dtype == torch.bfloat16:
        return QuantisedIndex(Bf16Vectors(tensors["vectors"]), order_N, removed_N)
    return ExactIndex(tensors["vectors"], order_N, removed_N)

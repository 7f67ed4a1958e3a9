"""Searchable item vectors. Knows vectors and rows, nothing of text, users or Ray.

Shapes: B queries, N items, D embedding size, K results, C candidates of a first pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from safetensors.torch import load, save

VECTORS = "vectors.safetensors"
Precision = Literal["fp32", "bf16", "int8"]
RESCORED = 4
"""Candidates of the first pass for each result that is asked for."""
BLOCK = 4_096
Allowed = Sequence[torch.Tensor | None]
"""For each query the (N,) bool mask of the items it may find; None where it may find all."""


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
        excluded: list[list[int]],
        allowed: Allowed | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each, best first, without each query's `excluded`.

        Where a query has a mask in `allowed`, only items of it come. Where fewer than K items are
        left, the score is minus infinity.
        """
        ...


def popularity_order(train_counts_N: torch.Tensor) -> torch.Tensor:
    """(N,) item indexes by training events, most first, ties in index order."""
    return train_counts_N.argsort(descending=True, stable=True)


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
        excluded: list[list[int]],
        allowed: Allowed | None = None,
    ) -> None:
        """Set the scores of removed, of `excluded` and of not allowed items to minus infinity."""
        scores_BN[:, self._removed] = -torch.inf
        masks = allowed or [None] * len(excluded)
        for row, items, mask_N in zip(scores_BN, excluded, masks, strict=True):
            row[items] = -torch.inf
            if mask_N is not None:
                row.masked_fill_(~mask_N, -torch.inf)

    def top(self, scores_BN: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each with K = min(top_k, N), best first."""
        size = min(top_k, scores_BN.shape[1])
        scores_BK, items_BK = scores_BN.topk(min(size + 1, scores_BN.shape[1]), dim=1)
        at_cut = scores_BK[:, size - 1]
        tied = (at_cut == scores_BK[:, -1]) & (at_cut > -torch.inf)
        if size < scores_BN.shape[1] and tied.any():
            # topk takes any of the items with one score; where that is at the cut, sort them all.
            found = scores_BN[tied][:, self.order_N].sort(dim=1, descending=True, stable=True)
            items_BK[tied] = self.order_N[found.indices[:, : size + 1]]
        return self.settled(scores_BK[:, :size], items_BK[:, :size])

    def settled(
        self, scores_BK: torch.Tensor, items_BK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same pairs sorted by score and, of one score, by order."""
        by_place = self._place_N[items_BK].argsort(dim=1)
        scores_BK, items_BK = scores_BK.gather(1, by_place), items_BK.gather(1, by_place)
        by_score = scores_BK.argsort(dim=1, descending=True, stable=True)
        return scores_BK.gather(1, by_score), items_BK.gather(1, by_score)


class ExactIndex:
    """Every item is scored in float32. For `order` and `removed` see `Ranking`."""

    def __init__(
        self,
        vectors_ND: torch.Tensor,
        order_N: torch.Tensor | None = None,
        removed_N: torch.Tensor | None = None,
    ) -> None:
        self._vectors_ND = vectors_ND.contiguous()
        self._ranking = Ranking(len(vectors_ND), order_N, removed_N)

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) float32 item vectors."""
        return self._vectors_ND

    def vectors_of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors of items; see `ItemIndex`."""
        return self._vectors_ND[item_indexes]

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `save_index` writes."""
        ranking = self._ranking
        return {
            "vectors": self._vectors_ND,
            "order": ranking.order_N,
            "removed": ranking.removed_N,
        }

    def search(
        self,
        queries_BD: torch.Tensor,
        top_k: int,
        excluded: list[list[int]],
        allowed: Allowed | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        scores_BN = queries_BD @ self._vectors_ND.T
        self._ranking.leave_out(scores_BN, excluded, allowed)
        return self._ranking.top(scores_BN, top_k)


class Bf16Vectors:
    """Half the memory: item vectors in bfloat16, with 8 bits of mantissa."""

    def __init__(self, vectors_ND: torch.Tensor) -> None:
        self.tensors = {"vectors": vectors_ND.to(torch.bfloat16).contiguous()}

    def first_scores(self, queries_BD: torch.Tensor) -> torch.Tensor:
        """(B, N) float32 scores.

        A product in bfloat16 takes a quarter of the time, but its scores are bfloat16 too: of
        100,000 items 2,700 different scores, too few to tell which come first.
        """
        return _scores_by_block(queries_BD, self.tensors["vectors"])

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

    def first_scores(self, queries_BD: torch.Tensor) -> torch.Tensor:
        """(B, N) float32 scores up to a factor that all of a query have in common.

        The query is made int8 too where the CPU multiplies int8 (VNNI): the product takes a seventh
        of the time of float32. Elsewhere torch multiplies int8 in a plain loop, so blocks of items
        are made float32.
        """
        codes_ND, scales_N = self.tensors["codes"], self.tensors["scales"]
        if torch.cpu._is_vnni_supported():
            query_codes_BD, _ = _to_int8(queries_BD)
            whole_BN = torch._int_mm(query_codes_BD, codes_ND.T)  # pyright: ignore
            return whole_BN * scales_N
        return _scores_by_block(queries_BD, codes_ND).mul_(scales_N)

    def of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors."""
        scales = self.tensors["scales"][item_indexes][..., None]
        return self.tensors["codes"][item_indexes].float() * scales


def _scores_by_block(queries_BD: torch.Tensor, stored_ND: torch.Tensor) -> torch.Tensor:
    """(B, N) float32 products, so many items made float32 at a time that they stay in cache."""
    blocks = [queries_BD @ block_MD.float().T for block_MD in stored_ND.split(BLOCK)]
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
        self._ranking = Ranking(size, order_N, removed_N)

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) a float32 copy of all item vectors."""
        return self._stored.of(torch.arange(len(self._ranking.order_N)))

    def vectors_of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors of items; see `ItemIndex`."""
        return self._stored.of(item_indexes)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `save_index` writes."""
        ranking = self._ranking
        return {**self._stored.tensors, "order": ranking.order_N, "removed": ranking.removed_N}

    def search(
        self,
        queries_BD: torch.Tensor,
        top_k: int,
        excluded: list[list[int]],
        allowed: Allowed | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        first_BN = self._stored.first_scores(queries_BD)
        self._ranking.leave_out(first_BN, excluded, allowed)
        first_BC, items_BC = self._ranking.top(first_BN, RESCORED * top_k)
        scores_BC = (self._stored.of(items_BC) @ queries_BD[:, :, None])[..., 0]
        scores_BC[first_BC == -torch.inf] = -torch.inf
        scores_BC, items_BC = self._ranking.settled(scores_BC, items_BC)
        return scores_BC[:, :top_k], items_BC[:, :top_k]


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

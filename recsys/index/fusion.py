"""Two rankings of one catalogue as one, and what is learned of queries to do that well.

Shapes: B queries, E width of the language model, K results.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load, save

FUSION = "fusion.safetensors"
RRF_K = 60
"""Cormack, Clarke & Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009."""
DEPTH = 500
"""Places of each ranking that count."""


@dataclass(frozen=True)
class Fusion:
    """How queries are read and rankings joined.

    `dense_weight`, 0 to 1, is the share of meaning beside words; at one half it is plain reciprocal
    rank fusion. `adapter` (E, E) is added to a query's own vector; None adds nothing.
    """

    dense_weight: float = 0.5
    adapter: torch.Tensor | None = None

    def adapt(self, queries_BE: torch.Tensor) -> torch.Tensor:
        """(B, E) query vectors of length 1, moved to where their items are."""
        return F.normalize(adapted(queries_BE, self.adapter), dim=1)


def adapted(queries_BE: torch.Tensor, adapter_EE: torch.Tensor | None) -> torch.Tensor:
    """A linear residual: with an adapter of 0 vectors stay where they are."""
    return queries_BE if adapter_EE is None else queries_BE + queries_BE @ adapter_EE


def fuse(
    words_K: torch.Tensor, meaning_K: torch.Tensor, dense_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct items of two rankings, in index order, and their scores above 0.

    A score is the weighted sum of 1 / (60 + rank) in each ranking, the first of rank 1.
    """
    shares = torch.cat(
        [(1 - dense_weight) * _reciprocal(words_K), dense_weight * _reciprocal(meaning_K)]
    )
    items, places = torch.cat([words_K, meaning_K]).unique(return_inverse=True)
    scores = torch.zeros(len(items)).index_add_(0, places, shares)
    return items[scores > 0], scores[scores > 0]


def fuse_in_order(
    relevant: list[int], liked: list[int], personal: float
) -> tuple[list[int], list[float]]:
    """`fuse` of two orders of the same items, best first; of equal scores the more relevant one."""
    items_K, scores_K = fuse(torch.tensor(relevant), torch.tensor(liked), personal)
    places = {item: place for place, item in enumerate(relevant)}
    pairs = zip(items_K.tolist(), scores_K.tolist(), strict=True)
    rows = sorted(pairs, key=lambda row: (-row[1], places[row[0]]))
    return [item for item, _ in rows], [score for _, score in rows]


def _reciprocal(items_K: torch.Tensor) -> torch.Tensor:
    return 1 / (RRF_K + torch.arange(1.0, len(items_K) + 1))


def save_fusion(fusion: Fusion) -> bytes:
    """As safetensors."""
    tensors = {"dense_weight": torch.tensor(fusion.dense_weight, dtype=torch.float64)}
    if fusion.adapter is not None:
        tensors["adapter"] = fusion.adapter.contiguous()
    return save(tensors)


def load_fusion(content: bytes) -> Fusion:
    """What `save_fusion` wrote."""
    tensors = load(content)
    return Fusion(float(tensors["dense_weight"]), tensors.get("adapter"))

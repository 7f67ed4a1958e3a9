"""Items -> vectors of length 1, in the space where users live too.

Shapes: C items, E width of a text vector, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from recsys.models.backbone import Tokens


@dataclass(frozen=True, slots=True)
class ItemInputs:
    """What C items are encoded from: always their indexes, and text vectors or tokens."""

    item_indexes: torch.Tensor
    text: torch.Tensor | None = None
    tokens: Tokens | None = None


class TextItemEncoder(nn.Module):
    """A small projection from text vector to item vector."""

    def __init__(self, text_size: int, hidden: int, embedding_size: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(text_size, hidden), nn.GELU(), nn.Linear(hidden, embedding_size)
        )

    def forward(self, text_CE: torch.Tensor) -> torch.Tensor:
        """(C, D) float32, length 1."""
        return F.normalize(self.projection(text_CE.to(self._dtype)).float(), dim=-1)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.projection.parameters()).dtype


class IdItemEncoder(nn.Module):
    """A table with one learned vector an item: the collaborative baseline."""

    def __init__(self, num_items: int, embedding_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_items, embedding_size)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, item_indexes_C: torch.Tensor) -> torch.Tensor:
        """(C, D) float32, length 1."""
        return F.normalize(self.table(item_indexes_C).float(), dim=-1)

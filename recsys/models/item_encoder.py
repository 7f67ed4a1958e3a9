"""Items -> vectors of length 1, in the space where users live too.

Shapes: C items, E width of a text vector, D width of a vector of words or of IDs alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from recsys.models.backbone import PackedTokens, Tokens

UNSEEN = -1
MAX_ID_SHARE = 0.4
"""Share of the squared length that an item with many training events has from its ID."""


@dataclass(frozen=True, slots=True)
class ItemInputs:
    """What C items are encoded from: always their indexes, and text vectors or tokens.

    An index is the item's row in training, `UNSEEN` for one that training did not have.
    """

    item_indexes: torch.Tensor
    text: torch.Tensor | None = None
    tokens: Tokens | PackedTokens | None = None


class TextItemEncoder(nn.Module):
    """A small projection from text vector to item vector."""

    def __init__(self, text_size: int, hidden: int, embedding_size: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(text_size, hidden), nn.GELU(), nn.Linear(hidden, embedding_size)
        )

    def forward(self, inputs: ItemInputs) -> torch.Tensor:
        """(C, D) float32, length 1."""
        assert inputs.text is not None
        text_CE = inputs.text.to(next(self.projection.parameters()).dtype)
        return F.normalize(self.projection(text_CE).float(), dim=-1)


class IdItemEncoder(nn.Module):
    """A table with one learned vector an item; items share rows where it has too few."""

    def __init__(self, num_rows: int, embedding_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_rows, embedding_size)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, inputs: ItemInputs) -> torch.Tensor:
        """(C, D) float32, length 1; 0 for an item that training did not have."""
        rows_C = inputs.item_indexes.clamp_min(0) % self.table.num_embeddings
        seen_C1 = (inputs.item_indexes != UNSEEN)[:, None]
        return F.normalize(self.table(rows_C).float(), dim=-1) * seen_C1


class HybridItemEncoder(nn.Module):
    """The vectors of text and ID side by side, weighted by how well the ID is known.

    After n training events the share of the ID in the squared length is
    `MAX_ID_SHARE` * n / (n + 1). An item that training never saw has its text alone.
    """

    train_counts: torch.Tensor

    def __init__(self, text: TextItemEncoder, ids: IdItemEncoder, num_items: int) -> None:
        super().__init__()
        self.text = text
        self.ids = ids
        self.register_buffer("train_counts", torch.zeros(num_items, dtype=torch.int64))

    def forward(self, inputs: ItemInputs) -> torch.Tensor:
        """(C, 2 D) float32, length 1."""
        share_C1 = self._id_shares(inputs.item_indexes)[:, None]
        text_CD, ids_CD = self.text(inputs), self.ids(inputs)
        return torch.cat([(1 - share_C1).sqrt() * text_CD, share_C1.sqrt() * ids_CD], dim=-1)

    def _id_shares(self, item_indexes_C: torch.Tensor) -> torch.Tensor:
        counts_C = self.train_counts[item_indexes_C.clamp_min(0)].float()
        counts_C = torch.where(item_indexes_C == UNSEEN, 0.0, counts_C)
        return MAX_ID_SHARE * counts_C / (counts_C + 1)

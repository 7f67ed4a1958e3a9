"""A history of item vectors -> a user vector at every position.

Shapes: B users, H positions, D embedding size, N heads, K head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from recsys.schema import Batch

NUM_GAPS = 32
"""Buckets of the gap between two events: powers of two in seconds, 2^31 is 68 years."""
INIT_STD = 0.02
"""As in GPT-2. With torch's default of 1 position vectors drown the items and learning stalls."""


class UserEncoder(nn.Module):
    """A causal pre-norm transformer; position t sees events 0 .. t and nothing later."""

    def __init__(
        self,
        embedding_size: int,
        num_layers: int,
        num_heads: int,
        max_history: int,
        num_events: int,
        dropout: float,
        use_time: bool,
    ) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(embedding_size)
        self.position = _small_embedding(max_history, embedding_size)
        self.event = _small_embedding(num_events, embedding_size)
        self.gap = _small_embedding(NUM_GAPS + 1, embedding_size) if use_time else None
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            Layer(embedding_size, num_heads, dropout) for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(embedding_size)

    def forward(self, items_BHD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(B, H, D) float32 user vectors of length 1; positions past a length are meaningless."""
        size = items_BHD.shape[1]
        items_BHD = items_BHD.to(self.norm_in.weight.dtype)
        positions_H = torch.arange(size, device=items_BHD.device)
        x_BHD = self.norm_in(items_BHD) + self.position(positions_H) + self.event(batch.events)
        if self.gap is not None:
            x_BHD = x_BHD + self.gap(gap_buckets(batch.timestamps))
        x_BHD = self.dropout(x_BHD)
        for layer in self.layers:
            x_BHD = layer(x_BHD)
        return F.normalize(self.norm_out(x_BHD).float(), dim=-1)


class HybridUserEncoder(nn.Module):
    """One encoder for the text halves of item vectors and one for their ID halves.

    Neither sees the other's half, so that each learns as it would alone, and their scores add up
    as those of an ensemble. `id_share` is the share of the ID half in a user vector's squared
    length; validation sets it, because training data overrate what is known by heart.
    """

    id_share: torch.Tensor

    def __init__(self, text: UserEncoder, ids: UserEncoder) -> None:
        super().__init__()
        self.text = text
        self.ids = ids
        self.register_buffer("id_share", torch.tensor(0.1))

    def forward(self, items_BHD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(B, H, D) float32 user vectors of length 1 from item vectors (B, H, D)."""
        text_BHD, ids_BHD = items_BHD.chunk(2, dim=-1)
        users_BHD = torch.cat([self.text(text_BHD, batch), self.ids(ids_BHD, batch)], dim=-1)
        return weigh_halves(users_BHD, self.id_share)


def weigh_halves(vectors_XD: torch.Tensor, second_share: float | torch.Tensor) -> torch.Tensor:
    """Vectors of length 1 in which the second half has this share of the squared length."""
    first, second = (F.normalize(half, dim=-1) for half in vectors_XD.chunk(2, dim=-1))
    return torch.cat([(1 - second_share) ** 0.5 * first, second_share**0.5 * second], dim=-1)


class Layer(nn.Module):
    """Attention to the left, then a feed-forward network, each normalised first."""

    def __init__(self, size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 4 * size), nn.GELU(), nn.Dropout(dropout)
        )
        self.down = nn.Linear(4 * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BHD: torch.Tensor) -> torch.Tensor:
        """(B, H, D) to (B, H, D)."""
        x_BHD = x_BHD + self.dropout(self.out(self._attend(self.norm_attention(x_BHD))))
        return x_BHD + self.dropout(self.down(self.feed_forward(x_BHD)))

    def _attend(self, x_BHD: torch.Tensor) -> torch.Tensor:
        heads = (x_BHD.shape[0], x_BHD.shape[1], self.num_heads, -1)
        q_BNHK, k_BNHK, v_BNHK = (
            part.reshape(heads).transpose(1, 2) for part in self.qkv(x_BHD).chunk(3, dim=-1)
        )
        rate = self.dropout.p if self.training else 0.0
        mixed_BNHK = F.scaled_dot_product_attention(
            q_BNHK, k_BNHK, v_BNHK, dropout_p=rate, is_causal=True
        )
        return mixed_BNHK.transpose(1, 2).reshape(x_BHD.shape)


def gap_buckets(timestamps_BH: torch.Tensor) -> torch.Tensor:
    """Log2 bucket (1 .. NUM_GAPS) of the seconds since the event before; 0 where unknown."""
    before_BH = torch.roll(timestamps_BH, 1, dims=1)
    known_BH = (timestamps_BH >= 0) & (before_BH >= 0)
    known_BH[:, 0] = False
    seconds_BH = (timestamps_BH - before_BH).clamp_min(0).double()
    buckets_BH = torch.log2(seconds_BH + 1).long().clamp_max(NUM_GAPS - 1) + 1
    return torch.where(known_BH, buckets_BH, torch.zeros_like(buckets_BH))


def _small_embedding(rows: int, size: int) -> nn.Embedding:
    table = nn.Embedding(rows, size)
    nn.init.normal_(table.weight, std=INIT_STD)
    return table

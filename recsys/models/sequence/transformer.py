"""A causal pre-norm transformer.

Shapes: B users, H positions, of which M are new and T were there before, D embedding size, N heads,
K head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

Past = list[tuple[torch.Tensor, torch.Tensor]]
"""The keys and values (B, N, T, K) of each layer, which later positions attend to."""


class TransformerLayers(nn.ModuleList):
    """Transformer layers one after another; they take order from the events' position vectors."""

    def __init__(self, size: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__(Layer(size, num_heads, dropout) for _ in range(num_layers))

    def forward(self, x_BHD: torch.Tensor, timestamps_BH: torch.Tensor) -> torch.Tensor:
        """(B, H, D) to (B, H, D)."""
        return self.read_on(x_BHD, None)[0]

    def read_on(self, x_BMD: torch.Tensor, past: Past | None) -> tuple[torch.Tensor, Past]:
        """(B, M, D) states of the positions after `past`, and what positions after those need."""
        kept: Past = []
        for number, layer in enumerate(self):
            x_BMD, seen = layer(x_BMD, None if past is None else past[number])
            kept.append(seen)
        return x_BMD, kept


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

    def forward(
        self, x_BMD: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """(B, M, D) to (B, M, D), and all keys and values (B, N, T + M, K)."""
        mixed_BMD, seen = self._attend(self.norm_attention(x_BMD), past)
        x_BMD = x_BMD + self.dropout(self.out(mixed_BMD))
        return x_BMD + self.dropout(self.down(self.feed_forward(x_BMD))), seen

    def _attend(
        self, x_BMD: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        heads = (x_BMD.shape[0], x_BMD.shape[1], self.num_heads, -1)
        q_BNMK, k_BNHK, v_BNHK = (
            part.reshape(heads).transpose(1, 2) for part in self.qkv(x_BMD).chunk(3, dim=-1)
        )
        seen_MH = None
        if past is not None:
            k_BNHK = torch.cat([past[0], k_BNHK], dim=2)
            v_BNHK = torch.cat([past[1], v_BNHK], dim=2)
            whole = torch.ones(q_BNMK.shape[2], k_BNHK.shape[2], dtype=torch.bool)
            seen_MH = whole.tril(past[0].shape[2]).to(x_BMD.device)
        rate = self.dropout.p if self.training else 0.0
        mixed_BNMK = F.scaled_dot_product_attention(
            q_BNMK, k_BNHK, v_BNHK, seen_MH, dropout_p=rate, is_causal=past is None
        )
        return mixed_BNMK.transpose(1, 2).reshape(x_BMD.shape), (k_BNHK, v_BNHK)

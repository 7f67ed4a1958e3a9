"""A causal pre-norm transformer.

Shapes: B users, H positions, D embedding size, N heads, K head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class TransformerLayers(nn.ModuleList):
    """Transformer layers one after another; they take order from the events' position vectors."""

    def __init__(self, size: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__(Layer(size, num_heads, dropout) for _ in range(num_layers))

    def forward(self, x_BHD: torch.Tensor, timestamps_BH: torch.Tensor) -> torch.Tensor:
        """(B, H, D) to (B, H, D)."""
        for layer in self:
            x_BHD = layer(x_BHD)
        return x_BHD


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

"""Hierarchical sequential transduction units (HSTU; Zhai et al. 2024, arXiv 2402.17152, section 3).

Shapes: B users, H positions, D embedding size, N heads, K head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from recsys.models.event_features import NUM_GAPS, log_buckets, small_embedding


class HstuLayers(nn.Module):
    """HSTU layers one after another, with relative positions and, with `use_time`, time gaps."""

    def __init__(
        self,
        size: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        max_history: int,
        use_time: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            HstuLayer(size, num_heads, dropout, max_history, use_time) for _ in range(num_layers)
        )

    def forward(self, x_BHD: torch.Tensor, timestamps_BH: torch.Tensor) -> torch.Tensor:
        """(B, H, D) to (B, H, D)."""
        positions_H = torch.arange(x_BHD.shape[1], device=x_BHD.device)
        distances_HH = (positions_H[:, None] - positions_H).clamp_min(0)
        gaps_BHH = pairwise_gaps(timestamps_BH)
        for layer in self.layers:
            x_BHD = layer(x_BHD, distances_HH, gaps_BHH)
        return x_BHD


def pairwise_gaps(timestamps_BH: torch.Tensor) -> torch.Tensor:
    """(B, H, H) bucket of the seconds from the second position's event to the first one's."""
    known_BH = timestamps_BH >= 0
    return log_buckets(
        timestamps_BH[:, :, None] - timestamps_BH[:, None, :],
        known_BH[:, :, None] & known_BH[:, None, :],
    )


class HstuLayer(nn.Module):
    """One layer, in the paper's words:

        U, V, Q, K = split(SiLU(f1(norm(X))))
        A V = SiLU(Q K^T + rab) V / n,    rab from relative positions and time gaps
        Y = X + f2(norm(A V) * U)

    SiLU in place of a softmax keeps how strong a preference is, and the gate U stands for a
    feed-forward network. Here n is the number of events up to a position, so that padding does
    not count. Left out: actions as tokens of their own, the next event's time in rab (unknown when
    serving), stochastic length, M-FALCON and fused kernels.
    """

    def __init__(
        self, size: int, num_heads: int, dropout: float, max_history: int, use_time: bool
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_in = nn.LayerNorm(size)
        self.uvqk = nn.Linear(size, 4 * size)
        self.distance = small_embedding(max_history, num_heads)
        self.gap = small_embedding(NUM_GAPS + 1, num_heads) if use_time else None
        self.norm_mixed = nn.LayerNorm(size, elementwise_affine=False)
        self.out = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BHD: torch.Tensor, distances_HH: torch.Tensor, gaps_BHH: torch.Tensor
    ) -> torch.Tensor:
        """(B, H, D) to (B, H, D)."""
        u_BHD, *vqk = F.silu(self.uvqk(self.norm_in(x_BHD))).chunk(4, dim=-1)
        heads = (x_BHD.shape[0], x_BHD.shape[1], self.num_heads, -1)
        v_BNHK, q_BNHK, k_BNHK = (part.reshape(heads).transpose(1, 2) for part in vqk)
        scores_BNHH = q_BNHK @ k_BNHK.transpose(-1, -2) + self._bias(distances_HH, gaps_BHH)
        seen_H1 = torch.arange(1, x_BHD.shape[1] + 1, device=x_BHD.device)[:, None]
        mixed_BNHK = (F.silu(scores_BNHH) / seen_H1.to(x_BHD.dtype)).tril() @ v_BNHK
        mixed_BHD = mixed_BNHK.transpose(1, 2).reshape(x_BHD.shape)
        return x_BHD + self.out(self.dropout(self.norm_mixed(mixed_BHD) * u_BHD))

    def _bias(self, distances_HH: torch.Tensor, gaps_BHH: torch.Tensor) -> torch.Tensor:
        """(B or 1, N, H, H)"""
        bias_BHHN = self.distance(distances_HH)[None]
        if self.gap is not None:
            bias_BHHN = bias_BHHN + self.gap(gaps_BHH)
        return bias_BHHN.permute(0, 3, 1, 2)

"""Gated recurrent units, as in GRU4Rec (Hidasi et al. 2016, arXiv 1511.06939).

Shapes: B users, H positions, D embedding size.
"""

from __future__ import annotations

import torch
from torch import nn


class GruLayers(nn.Module):
    """torch's GRU; the paper's session-parallel batches are left out, histories are padded."""

    def __init__(self, size: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        # torch drops out between layers alone, and warns where there is only one.
        between = dropout if num_layers > 1 else 0.0
        self.gru = nn.GRU(size, size, num_layers, batch_first=True, dropout=between)
        # With torch's random biases all histories start alike: mean cosine .28 at width 64.
        for name, parameter in self.gru.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x_BHD: torch.Tensor, timestamps_BH: torch.Tensor) -> torch.Tensor:
        """(B, H, D) to (B, H, D)."""
        return self.gru(x_BHD)[0]

"""What the loss divides cosine similarities by; ranking does not depend on it."""

from __future__ import annotations

import math

import torch
from torch import nn

from recsys.config.model import TEMPERATURE_BOUNDS


class Temperature(nn.Module):
    """A number, or a weight that starts at it.

    It is a module because ZeRO-3 has a weight at hand only while its own module runs.
    """

    def __init__(self, start: float, learns: bool) -> None:
        super().__init__()
        self._start = start
        # Of one dimension: DeepSpeed cannot broadcast a bf16 weight that has none.
        self.log = nn.Parameter(torch.tensor([math.log(start)])) if learns else None

    def forward(self) -> torch.Tensor:
        """A float32 tensor without dimensions; a learned one is between `TEMPERATURE_BOUNDS`.

        ZeRO-3 takes no plain number from a module. Beyond a bound the gradient is that at the
        bound, so that the weight can come back.
        """
        if self.log is None:
            return torch.tensor(self._start)
        free = self.log[0].float()
        low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
        return (free + (free.clamp(low, high) - free).detach()).exp()

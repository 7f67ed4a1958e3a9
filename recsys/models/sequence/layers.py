"""The part of a user encoder that can be swapped: what joins the events of a history."""

from __future__ import annotations

from typing import Protocol

import torch


class SequenceLayers(Protocol):
    """Events to states: the state at position t follows from events 0 .. t and nothing later.

    Padding is on the right, so that layers which hold to this need no mask.
    """

    def __call__(self, x_BHD: torch.Tensor, timestamps_BH: torch.Tensor) -> torch.Tensor:
        """(B, H, D) to (B, H, D); `timestamps_BH` are Unix seconds, negative where unknown."""
        ...

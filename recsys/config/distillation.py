"""Checkpoint to a checkpoint with a smaller language model."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from recsys.config.section import Section, Share


class DistillationConfig(Section):
    """Checkpoint to a checkpoint with a smaller language model."""

    num_layers: PositiveInt = 3
    """Layers of the student: the teacher's first ones, which it starts from."""
    loss: Literal["cosine", "mse"] = "cosine"
    """What the student's text vectors are to have of the teacher's: direction, or all of them."""
    epochs: PositiveInt = 3
    """Passes over the items' texts."""
    batch_size: PositiveInt = 64
    """Texts a step."""
    learning_rate: PositiveFloat = 2e-4
    """Peak learning rate of AdamW."""
    warmup_share: Share = 0.1
    """Share of the steps over which the learning rate rises; then it falls as a cosine."""
    use_gpu: bool = False
    """Learn on a GPU."""
    seed: NonNegativeInt = 0
    """Seed of the held-out items and of the order."""

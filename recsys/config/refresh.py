"""The daily loop: new events to a candidate, and when it may take the live model's place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recsys.config.section import Section, Share


class GateConfig(Section):
    """What a candidate must hold against the live model, on the same rows."""

    metric: Literal["recall@10", "ndcg@10", "mrr@10"] = "ndcg@10"
    """The metric that decides."""
    max_loss: Share = 0.0
    """Loss over all rows that is let through, as a share of the live model's value."""
    max_segment_loss: Share = 0.05
    """Loss in any one segment that is let through, as a share of the live model's value there."""
    level: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """How sure a loss must be to stop a candidate that is none the worse: so many of a hundred
    such candidates pass, however many segments there are."""
    min_rows: PositiveInt = 200
    """A segment with fewer rows is not judged; with fewer rows in all nothing is promoted."""


class RefreshConfig(Section):
    """How the live model goes on learning."""

    epochs: PositiveInt = 3
    """Passes over all training windows, old and new, from the live model's weights on."""
    learning_rate: PositiveFloat = 5e-4
    """Peak learning rate; below that of a training from nothing, which would undo what is known."""
    gate: GateConfig = GateConfig()
    """When the result is promoted."""

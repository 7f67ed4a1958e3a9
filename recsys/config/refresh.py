"""The daily loop: new events to a candidate, and how it may take the live model's place."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from recsys.config.section import Names, Section, Share


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


class CanaryConfig(Section):
    """How a candidate takes the live model's place: users by users, watched."""

    steps: Annotated[
        tuple[Annotated[float, Field(gt=0.0, le=0.5)], ...], Field(strict=False, min_length=1)
    ] = (0.05, 0.25)
    """Shares of all users that get the candidate, one after the other; as many get the live model
    and are compared with them, so half is the most. After the last step it is live for all."""
    hold_s: NonNegativeFloat = 3_600.0
    """Least seconds of a step."""
    min_requests: PositiveInt = 2_000
    """Least requests of a step that the candidate answers."""
    min_clicks: NonNegativeInt = 100
    """Least clicks of those who get the live model, before the first step is over: with fewer the
    log of clicks may be broken."""
    max_step_s: PositiveFloat = 28_800.0
    """Most seconds of a step. One that lacks requests by then is rolled back; and the experiment
    ends by itself, should nobody watch it any more."""
    look_s: PositiveFloat = 300.0
    """Seconds between two looks at the logs."""
    level: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """How sure harm must be to roll a candidate back: so many of a hundred that are none the worse
    pass, all looks and all measures together."""
    max_slowdown: NonNegativeFloat = 0.25
    """How much longer the candidate's slowest hundredth may take, as a share of the live model's
    p99."""
    min_answered: Share = 0.95
    """Least share of each side's requests that its own model answers; below it a step is not over,
    as replicas may lack the candidate."""
    window_hours: PositiveFloat = 24.0
    """How long after an item was shown a click on it counts."""
    click_events: Annotated[Names, Field(min_length=1)] = ("click",)
    """Events that are clicks."""
    expected_loss: PositiveFloat = 0.05
    """Relative loss of CTR that is found soonest."""
    wait_s: NonNegativeFloat = 30.0
    """Seconds from the last step until all replicas have it live."""

    @model_validator(mode="after")
    def _goes_up(self) -> Self:
        if any(a >= b for a, b in pairwise(self.steps)):
            raise ValueError(f"steps must rise, not be {', '.join(map(str, self.steps))}")
        if self.max_step_s <= self.hold_s:
            raise ValueError(
                f"max_step_s {self.max_step_s:g} must be more than hold_s {self.hold_s:g}"
            )
        return self


class RefreshConfig(Section):
    """How the live model goes on learning."""

    epochs: PositiveInt = 3
    """Passes over all training windows, old and new, from the live model's weights on."""
    learning_rate: PositiveFloat = 5e-4
    """Peak learning rate; below that of a training from nothing, which would undo what is known."""
    gate: GateConfig = GateConfig()
    """When the result is promoted."""
    canary: CanaryConfig = CanaryConfig()
    """How it goes on from there to all users, where a canary is asked for."""

"""Which settings a sweep tries, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from recsys.config.section import Section

Value = bool | int | float | str
"""What a setting can be."""


class Range(Section):
    """All numbers from `low` to `high`."""

    low: float
    """The least."""
    high: float
    """The largest."""
    log: bool = False
    """Draw the logarithm evenly, as for rates."""
    whole: bool = False
    """Only whole numbers."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"low {self.low} and high {self.high} are no range: low must be the smaller one, "
                "and above 0 where log is true"
            )
        return self


class SweepConfig(Section):
    """Which settings a sweep tries, and what it may cost."""

    space: Annotated[
        dict[str, Range | Annotated[tuple[Value, ...], Field(strict=False, min_length=1)]],
        Field(min_length=1),
    ]
    """By the full key of a setting of the model or of training: a range, or a list of values."""
    trials: PositiveInt = 12
    """Settings that are tried."""
    min_epochs: PositiveInt = 2
    """Epochs that each of them is given at least."""
    keep_one_of: Annotated[int, Field(ge=2)] = 3
    """Of so many trials that come equally far, the best goes on; then for so many times as long."""
    at_once: PositiveInt = 1
    """Trials that run beside each other; each takes `training.num_workers` workers."""
    minutes: NonNegativeInt = 0
    """No epoch starts after so many minutes; 0 is no limit."""
    seed: NonNegativeInt = 0
    """Seed of what is drawn from the space."""

"""A/B tests, how they are analysed, and the TOML file that lists those that run."""

from __future__ import annotations

import tomllib
from collections import Counter
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from recsys.config.section import Names, Section, Share

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Time = Annotated[AwareDatetime, Field(strict=False)]


class VariantConfig(Section):
    """One of the things that an experiment compares."""

    name: Name
    """Its name, as exposures have it."""
    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Share of the experiment's users that see it."""
    alias: Literal["live", "candidate"] = "live"
    """Which model of the registry answers."""
    diversity: Share | None = None
    """In place of the request's, for recommendations; None leaves it."""
    max_per_category: PositiveInt | None = None
    """In place of the request's, for recommendations; None leaves it."""
    personal: Share | None = None
    """In place of the request's, for searches; None leaves it."""


class ExperimentConfig(Section):
    """Who sees which variant, and when."""

    name: Name
    """Its name, as exposures have it."""
    salt: Name
    """What divides the users, apart from every other salt. A new salt divides them anew."""
    variants: Annotated[tuple[VariantConfig, ...], Field(strict=False, min_length=2)]
    """The variants; the first is the control. Their shares sum to 1."""
    ramp: Share = 1.0
    """Share of all users that are in the experiment. Raising it moves nobody between variants."""
    start: Time | None = None
    """From when on, with its time zone; None has begun."""
    end: Time | None = None
    """Until when, not included; None does not end."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        _check_distinct("variants", [variant.name for variant in self.variants])
        total = sum(variant.share for variant in self.variants)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares of {self.name} sum to {total:g}: they must sum to 1")
        if self.start and self.end and self.end <= self.start:
            raise ValueError(f"{self.name} ends before it starts: {self.end} <= {self.start}")
        return self

    def is_running(self, now: datetime) -> bool:
        """Whether the time `now`, with its time zone, lies between start and end."""
        return (self.start is None or self.start <= now) and (self.end is None or now < self.end)


class ExperimentsConfig(Section):
    """All experiments of one service."""

    experiments: Annotated[tuple[ExperimentConfig, ...], Field(strict=False)] = ()
    """The experiments. Each divides the users without regard to the others."""

    @model_validator(mode="after")
    def _are_apart(self) -> Self:
        _check_distinct("names", [each.name for each in self.experiments])
        # With one salt the users of two experiments' first variants would be the same people.
        _check_distinct("salts", [each.salt for each in self.experiments])
        return self


def _check_distinct(what: str, names: list[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{what} must differ; more than once: {', '.join(repeated)}")


class AnalysisConfig(Section):
    """How the logs of an experiment become a verdict."""

    window_hours: PositiveFloat = 24.0
    """How long after an item was shown an event of it counts as caused by it."""
    click_events: Annotated[Names, Field(min_length=1)] = ("click",)
    """Events that are clicks."""
    conversion_events: Annotated[Names, Field(min_length=1)] = ("purchase",)
    """Events that are conversions."""
    pre_days: NonNegativeFloat = 28.0
    """What users did so many days before the experiment lowers the variance (CUPED); 0: nothing."""
    level: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """How sure an interval is."""
    sequential: bool = False
    """Intervals and p-values that stay right however often one looks; they are wider."""
    expected_effect: PositiveFloat = 0.05
    """Relative effect the experiment is to find, such as 0.05 of a CTR: it gives the users needed,
    and where sequential intervals are narrowest. Decide it before the experiment."""
    power: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.8
    """Chance of finding that effect, for the users needed."""


def parse_experiments(text: str, place: str) -> ExperimentsConfig:
    """The experiments of a TOML text with `[[experiments]]` tables, read from `place`.

    Raises:
        ValueError: the text is not TOML, or a value is wrong; names the place and each key.
    """
    try:
        return ExperimentsConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{place} is not valid TOML: {error}") from error
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'config'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ValueError(f"{place}: {'; '.join(faults)}") from error

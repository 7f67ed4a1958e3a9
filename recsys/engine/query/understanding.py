"""What was understood of a search text, as it travels: a client may edit it and send it back."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_QUERY_CHARS = 256
"""Characters of a query that are read; what is beyond them says nothing more."""
MAX_SLOTS = 32
MIN_CONFIDENCE = 0.5

Language = Literal["en", "zh", "mixed", "other"]
Intent = Literal["navigational", "category", "attribute", "exploratory"]
SlotKind = Literal[
    "category", "brand", "price", "size", "colour", "attribute", "without", "recipient"
]
Place = Annotated[int, Field(ge=0, le=2 * MAX_QUERY_CHARS)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Text = Annotated[str, Field(max_length=1_000)]
FilterTuple = tuple[str, tuple[str, ...], float | None, float | None, bool]
"""(column, values, minimum, maximum, negated)."""

_NOT_SEARCHED = ("price", "without", "recipient")


class Understood(BaseModel):
    """Frozen; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Slot(Understood):
    """One part of what was asked for."""

    kind: SlotKind
    column: Text | None = None
    """Column of the items it speaks of; None where the catalogue has no such column."""
    value: Text | None = None
    """As the catalogue writes it; None for a price."""
    minimum: float | None = None
    maximum: float | None = None
    unit: Text | None = None
    """Currency of a price as an ISO 4217 code, where one is named. Nothing is converted."""
    negated: bool = False
    """Whether it is not wanted."""
    start: Place | None = None
    end: Place | None = None
    """Where it stands in `normalised`; None for what follows from the text as a whole."""
    confidence: Share = 1.0

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and low > high:
            raise ValueError(f"minimum {low} is more than maximum {high}: exchange them")
        return self


class Correction(Understood):
    """A word as it was probably meant."""

    start: Place
    end: Place
    word: Text
    confidence: Share


class QueryUnderstanding(Understood):
    """A search text, read."""

    text: str
    """As given; half a surrogate pair, which no JSON can hold, as a question mark."""
    normalised: Annotated[str, Field(max_length=MAX_QUERY_CHARS)]
    language: Language
    corrections: Annotated[tuple[Correction, ...], Field(max_length=MAX_QUERY_CHARS)] = ()
    corrected: Annotated[str, Field(max_length=10 * MAX_QUERY_CHARS)] | None = None
    """`normalised` with the corrections; None where there are none."""
    intent: Intent
    confidence: Share
    """Probability of the intent."""
    slots: Annotated[tuple[Slot, ...], Field(max_length=MAX_SLOTS)] = ()

    def as_filters(self, min_confidence: float = MIN_CONFIDENCE) -> list[FilterTuple]:
        """What the slots ask of the items; every one must hold.

        Wanted values of one column are alternatives; unwanted ones are one negated filter.
        """
        sure = [s for s in self.slots if s.column and s.confidence >= min_confidence]
        values: dict[tuple[str, bool], list[str]] = {}
        for slot in sure:
            if slot.value is not None and slot.column is not None:
                values.setdefault((slot.column, slot.negated), []).append(slot.value)
        ranges: list[FilterTuple] = [
            (slot.column, (), slot.minimum, slot.maximum, slot.negated)
            for slot in sure
            if slot.column and slot.value is None and (slot.minimum, slot.maximum) != (None, None)
        ]
        return [
            (column, tuple(dict.fromkeys(given)), None, None, negated)
            for (column, negated), given in values.items()
        ] + ranges

    def search_text(self) -> str:
        """What to search for: corrected, without prices, recipients and what is not wanted.

        The text itself where nothing else is left.
        """
        cuts = [
            (s.start, s.end, " ")
            for s in self.slots
            if s.start is not None and s.end is not None and (s.kind in _NOT_SEARCHED or s.negated)
        ]
        edits = [*cuts, *((c.start, c.end, c.word) for c in self.corrections)]
        left = self.normalised
        last = len(left)
        for start, end, word in sorted(edits, reverse=True):
            if start <= end <= last:
                left = left[:start] + word + left[end:]
                last = start
        return " ".join(left.split()) or self.normalised

    def unwanted(self) -> list[str]:
        """Words that what is found should not contain, where no column says it."""
        return [s.value for s in self.slots if s.kind == "without" and s.value and not s.column]

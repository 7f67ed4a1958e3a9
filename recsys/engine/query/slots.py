"""The parts of a query: prices, sizes, values of the catalogue, what is denied, for whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recsys.engine.query.amounts import Price, find_prices, find_sizes
from recsys.engine.query.lexicon import CATEGORY, PRICE, Lexicon, Match, slot_kind
from recsys.engine.query.negation import Negation, find_negations
from recsys.engine.query.query_words import HEAD_ENDS
from recsys.engine.query.recipients import find_recipients
from recsys.engine.query.understanding import MAX_SLOTS, MIN_CONFIDENCE, Slot
from recsys.engine.query.units import Unit, phrase_of, split_units

_SURE = 0.8
"""Of phrases that mean a category at least so surely, the place alone decides."""
_SIZE_CONFIDENCE, _WORD_CONFIDENCE, _RECIPIENT_CONFIDENCE = 0.9, 0.7, 0.9


def find_slots(
    folded: str, units: Sequence[Unit], sureness: Sequence[float], lexicon: Lexicon
) -> list[Slot]:
    """Slots of a lower-case query in the order of their places.

    `sureness` is how sure each unit is meant as it is written, less where it was corrected. The
    place of a unit belongs to one slot: to prices first, then sizes, then values of the catalogue.
    """
    taken: set[int] = set()
    amounts = _amounts(folded, units, taken, lexicon)
    matches = [m for m in lexicon.find(units, taken) if not _says_nothing(units, m)]
    # A phrase that seldom means its value leaves its words to what else they may mean.
    matches = [m for m in matches if m.term.confidence >= MIN_CONFIDENCE]
    spans = {m.first: m.last for m in matches}
    denied = {n.first: n for n in find_negations(folded, units, lexicon.phrases, spans)}
    values = [m for m in matches if m.term.column != CATEGORY or m.first in denied]
    slots = [_value_slot(units, sureness, m, denied.pop(m.first, None)) for m in values]
    for match in values:
        taken.update(range(match.first, match.last))
    slots += _denied_words(units, denied.values(), taken)
    slots += _recipients(folded, units, taken)
    category = _head_category(units, matches, lexicon.find_categories(units, taken), taken)
    slots += [_value_slot(units, sureness, m, None) for m in category]
    return sorted([*amounts, *slots], key=lambda slot: slot.start or 0)[:MAX_SLOTS]


def _amounts(folded: str, units: Sequence[Unit], taken: set[int], lexicon: Lexicon) -> list[Slot]:
    slots = []
    for price in find_prices(folded):
        _take(units, price.start, price.end, taken)
        slots.append(_price_slot(price, lexicon))
    for size in find_sizes(folded):
        if not _take(units, size.start, size.end, taken):
            continue
        term = lexicon.named.get(phrase_of(split_units(size.value)))
        known = term if term and slot_kind(term.column) == "size" else None
        slots.append(
            Slot(
                kind="size",
                column=known.column if known else None,
                value=known.value if known else size.value,
                start=size.start,
                end=size.end,
                confidence=_SIZE_CONFIDENCE,
            )
        )
    return slots


def _price_slot(price: Price, lexicon: Lexicon) -> Slot:
    return Slot(
        kind="price",
        column=PRICE if lexicon.has_price else None,
        minimum=price.minimum,
        maximum=price.maximum,
        unit=price.currency,
        start=price.start,
        end=price.end,
        confidence=price.confidence,
    )


def _take(units: Sequence[Unit], start: int, end: int, taken: set[int]) -> bool:
    """Mark the units at these places; False, and nothing marked, where one already is."""
    there = {n for n, unit in enumerate(units) if unit.start < end and start < unit.end}
    if there & taken:
        return False
    taken |= there
    return True


def _says_nothing(units: Sequence[Unit], match: Match) -> bool:
    """Whether a match is a bare number or letter: the size `42` or `M` needs a word beside it."""
    phrase = "".join(unit.word for unit in units[match.first : match.last])
    return phrase.isdigit() or (phrase.isascii() and len(phrase) < 2)


def _value_slot(
    units: Sequence[Unit], sureness: Sequence[float], match: Match, denied: Negation | None
) -> Slot:
    sure = min(sureness[match.first : match.last])
    return Slot(
        kind=slot_kind(match.term.column),
        column=match.term.column,
        value=match.term.value,
        negated=denied is not None,
        start=denied.start if denied else units[match.first].start,
        end=units[match.last - 1].end,
        confidence=round(sure * match.term.confidence, 3),
    )


def _denied_words(units: Sequence[Unit], denied: Iterable[Negation], taken: set[int]) -> list[Slot]:
    slots = []
    for negation in denied:
        places = range(negation.first, negation.last)
        if taken.intersection(places):
            continue
        taken.update(places)
        glue = "" if units[negation.first].is_cjk else " "
        slots.append(
            Slot(
                kind="without",
                value=glue.join(units[n].word for n in places),
                negated=True,
                start=min(negation.start, units[negation.first].start),
                end=max(negation.end, units[negation.last - 1].end),
                confidence=_WORD_CONFIDENCE,
            )
        )
    return slots


def _recipients(folded: str, units: Sequence[Unit], taken: set[int]) -> list[Slot]:
    return [
        Slot(
            kind="recipient",
            value=found.name,
            start=found.start,
            end=found.end,
            confidence=_RECIPIENT_CONFIDENCE,
        )
        for found in find_recipients(folded)
        if _take(units, found.noun, found.end, taken)
    ]


def _head_category(
    units: Sequence[Unit], named: Sequence[Match], learned: Sequence[Match], taken: set[int]
) -> list[Match]:
    """The category of the thing itself, if there is one.

    Before the first `for` or `with`, then a sure one, then the last, since English and Chinese
    put what qualifies first: a `camping mug` is a mug.
    """
    found = [m for m in named if m.term.column == CATEGORY]
    found = [m for m in [*found, *learned] if not taken.intersection(range(m.first, m.last))]
    ends = [n for n, unit in enumerate(units) if unit.word in HEAD_ENDS]
    head_ends = next((n for n in ends if any(m.last <= n for m in found)), len(units))
    found.sort(key=lambda m: (m.last <= head_ends, m.term.confidence >= _SURE, m.first))
    return found[-1:]

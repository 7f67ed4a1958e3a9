"""What is not wanted: `without sugar`, `not red`, `sugar-free`, `不要`, `无糖`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from recsys.engine.query.query_words import STOP_KEYS
from recsys.engine.query.units import Unit, phrase_of, words_of

_CUE = re.compile(
    r"(?<![\w])(?:without|w/o|with no|but not|not|no|non|except(?: for)?|excluding|exclude|"
    r"anything but|free of)(?:[ -](?:any|a|an|the|in|made of|added))?(?=[ -][^\W_0-9])"
    r"|(?:不想要|不要|不含|不带|不是|(?<!有)没有|除了|无|非)(?:含有|任何|有|太)?"
)
_FREE = re.compile(r"(?<![\w])[a-z]{3,20}(?P<cue>[ -]free)(?!\w)(?! (?:shipping|delivery|gift))")
_NEXT = re.compile(r" ?(?:,|or|nor|或者|或|、) ?")
_NOT_LACKING = {"hand", "tax", "duti", "for", "stress", "is", "and", "no", "with", "the"}
"""`hands-free` is no lack of hands."""
_NO_CUES = re.compile("无[线人印痕缝极敌限比论]|非[常洲凡]")
"""Words that begin like a negation and are none."""
_AHEAD = 8


class Negation(NamedTuple):
    """A cue at places `start` to `end` of the text, and the units that it denies."""

    start: int
    end: int
    first: int
    last: int


def find_negations(
    folded: str, units: Sequence[Unit], phrases: frozenset[str], values: dict[int, int]
) -> list[Negation]:
    """What a lower-case text denies.

    `values`: where units that name a value of the catalogue begin and end; such a value is denied
    as a whole. A cue that with what follows is a phrase of many titles (`phrases`) denies nothing:
    `no show socks` names socks.
    """
    found: list[Negation] = []
    for match in _CUE.finditer(folded):
        first = next((n for n, unit in enumerate(units) if unit.start >= match.end()), None)
        if first is None or _is_name(folded, units, first, match.start(), phrases):
            continue
        start, end = match.span()
        while first is not None:
            last = values.get(first) or first + _length(units, first)
            found.append(Negation(start, end, first, last))
            first = _following(folded, units, last)
            start = end = units[last - 1].end
    return found + _lacking(folded, units, phrases)


def _lacking(folded: str, units: Sequence[Unit], phrases: frozenset[str]) -> list[Negation]:
    found = []
    starts = {unit.start: n for n, unit in enumerate(units)}
    for match in _FREE.finditer(folded):
        first = starts.get(match.start())
        if first is None or units[first].key in _NOT_LACKING:
            continue
        if phrase_of(units[first : first + 2]) not in phrases:
            found.append(Negation(*match.span("cue"), first, first + 1))
    return found


def _is_name(
    folded: str, units: Sequence[Unit], first: int, start: int, phrases: frozenset[str]
) -> bool:
    if _NO_CUES.match(folded, start) or units[first].key in STOP_KEYS:
        return True
    begin = next(n for n, unit in enumerate(units) if unit.start >= start)
    return any(phrase_of(units[begin:last]) in phrases for last in range(first + 1, first + 3))


def _length(units: Sequence[Unit], first: int) -> int:
    """Units of the one word that stands there."""
    return words_of(units[first : first + _AHEAD])[0][1]


def _following(folded: str, units: Sequence[Unit], last: int) -> int | None:
    """The next unit where a list goes on: `not red or blue`."""
    if last >= len(units):
        return None
    joint = folded[units[last - 1].end : units[last].start]
    if "," in joint or "、" in joint:
        return last
    match = _NEXT.match(folded, units[last - 1].end)
    if not match:
        return None
    return next((n for n in range(last, len(units)) if units[n].start >= match.end()), None)

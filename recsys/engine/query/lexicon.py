"""The words of a catalogue: which phrase names which value of which column, and how surely.

A phrase names a value if it is that value, or, of a category, if most titles that hold it are of
that category: `backpack` is learned to mean `Bags and luggage`. Shapes: N items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from recsys import schema
from recsys.engine.query.query_words import EMPTY_KEYS, STOP_KEYS
from recsys.engine.query.understanding import SlotKind
from recsys.engine.query.units import Unit, phrase_of, split_units, words_of
from recsys.index.item_columns import attribute_columns

CATEGORY, BRAND, PRICE = "category", "brand", "price"
MAX_FIT_ITEMS = 100_000
"""Of a larger catalogue the items with most training events are read."""
MAX_VALUE_UNITS, MAX_VALUE_CHARS = 12, 200
MAX_VALUES = 1_000
"""A text column with more values, brands aside, is no attribute to search by."""
MIN_TITLES, MIN_SHARE = 5, 0.6
"""A phrase of fewer titles, or of which fewer are of one category, does not name a category."""
MIN_NAMED = 0.3
"""A value that is a common word, such as the brand `The`, is not taken for named below this."""
_ALIAS_SHARE, _SAME_SHARE, _MORE_OFTEN = 0.8, 0.05, 1.5
_MAX_CHARACTERS = 4
_COLOURS, _SIZES = ("colour", "color", "颜色"), ("size", "尺码", "尺寸")


@dataclass(frozen=True, slots=True)
class Term:
    """What a phrase stands for."""

    column: str
    value: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Match:
    """A term of the lexicon at the units `first` to `last` (exclusive) of a query."""

    term: Term
    first: int
    last: int


class Lexicon:
    """What the words of queries mean in one catalogue."""

    def __init__(self, items: pa.Table) -> None:
        """`items`: title, and as far as there are any category, brand, price, text columns."""
        kept = _to_read(items)
        self.titles = [split_units(title or "") for title in kept["title"].to_list()]
        """The units of the titles, at most `MAX_FIT_ITEMS`, most popular first."""
        self.frame = kept
        """The items of `titles`."""
        self.columns = _value_columns(kept, attribute_columns(items))
        self.has_price = PRICE in kept.columns and kept[PRICE].is_not_null().any()
        values = {name: kept[name].drop_nulls().value_counts() for name in self.columns}
        units = {name: _units_of_values(counts) for name, counts in values.items()}
        phrases = {phrase_of(u) for of in units.values() for u in of.values() if u}
        counts = _PhraseCounts(self.titles, phrases)
        self.named = self._named_values(counts, units)
        self.learned = self._learned_categories(counts, units.get(CATEGORY, {}))
        self._named_units, self._learned_units = _most_units(self.named), _most_units(self.learned)
        self.words, self.keys = self._vocabulary(units)
        self.phrases = counts.frequent
        """Phrases of at least `MIN_TITLES` titles."""

    def find(self, units: Sequence[Unit], taken: set[int]) -> list[Match]:
        """Values named in a query, the longest at each place, without the units in `taken`."""
        return list(_longest(self.named, self._named_units, units, taken))

    def find_categories(self, units: Sequence[Unit], taken: set[int]) -> list[Match]:
        """Phrases that are learned to mean a category, likewise."""
        return list(_longest(self.learned, self._learned_units, units, taken))

    def is_known(self, unit: Unit) -> bool:
        """Whether titles or values hold the unit."""
        return unit.key in self.keys

    def _named_values(
        self, counts: _PhraseCounts, units: dict[str, dict[str, list[Unit]]]
    ) -> dict[str, Term]:
        # Of titles with the phrase, the share with the value. One title more is taken to be right,
        # so that a value no title holds is still believed.
        named: dict[str, Term] = {}
        for column, of in units.items():
            joint = counts.joint(self.frame[column])
            for value, parts in of.items():
                for phrase, is_alias in _names_of(parts, with_words=column == BRAND):
                    titles, both = counts.of(phrase), joint.get((phrase, value), 0)
                    share = both / max(titles, 1) if is_alias else (both + 1) / (titles + 1)
                    if share < (_ALIAS_SHARE if is_alias else MIN_NAMED) or is_alias > titles:
                        continue
                    term = Term(column, value, round(share, 3))
                    if phrase not in named or named[phrase].confidence < term.confidence:
                        named[phrase] = term
        return named

    def _learned_categories(
        self, counts: _PhraseCounts, categories: dict[str, list[Unit]]
    ) -> dict[str, Term]:
        if not categories:
            return {}
        joint = Counter(counts.joint(self.frame[CATEGORY]))
        total: Counter[str] = Counter()
        for (phrase, _), number in joint.items():
            total[phrase] += number
        sizes = dict(self.frame[CATEGORY].drop_nulls().value_counts().iter_rows())
        for value, units in categories.items():
            for phrase in set(_phrases(units)):
                joint[phrase, value] += sizes[value]
                total[phrase] += sizes[value]
        learned = {
            phrase: Term(CATEGORY, value, round(number / (total[phrase] + 1), 3))
            for (phrase, value), number in joint.items()
            if number >= max(MIN_TITLES, MIN_SHARE * (total[phrase] + 1))
        }
        return {
            phrase: term
            for phrase, term in learned.items()
            if not _is_said_shorter(phrase, term, learned, total)
        }

    def _vocabulary(
        self, units: dict[str, dict[str, list[Unit]]]
    ) -> tuple[Counter[str], frozenset[str]]:
        values = [parts for of in units.values() for parts in of.values()]
        words = Counter(unit.word for parts in (*self.titles, *values) for unit in parts)
        keys = frozenset(unit.key for parts in (*self.titles, *values) for unit in parts)
        return words, keys


def slot_kind(column: str) -> SlotKind:
    """The kind of slot that a column of the items fills."""
    name = column.lower()
    if name in _COLOURS:
        return "colour"
    if name in _SIZES:
        return "size"
    kinds: dict[str, SlotKind] = {CATEGORY: "category", BRAND: "brand", PRICE: "price"}
    return kinds.get(name, "attribute")


def _to_read(items: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(items)).with_columns(pl.col(pl.Categorical).cast(pl.String))
    if schema.REMOVED in frame.columns:
        frame = frame.filter(~pl.col(schema.REMOVED))
    if schema.TRAIN_COUNT in frame.columns:
        frame = frame.sort(schema.TRAIN_COUNT, descending=True, maintain_order=True)
    texts = [n for n, kind in frame.schema.items() if kind == pl.String]
    return frame.head(MAX_FIT_ITEMS).with_columns(pl.col(texts).replace("", None))


def _value_columns(frame: pl.DataFrame, attributes: Sequence[str]) -> list[str]:
    """Category, brand, and the other attributes of few values, in this order."""
    texts = [n for n in attributes if frame.schema[n] == pl.String]
    first = [n for n in (CATEGORY, BRAND) if n in texts]
    few = [n for n in texts if n not in first and frame[n].n_unique() <= MAX_VALUES]
    return first + few


def _units_of_values(counts: pl.DataFrame) -> dict[str, list[Unit]]:
    split = {v: split_units(v) for v in counts.to_series(0) if len(v) <= MAX_VALUE_CHARS}
    return {value: units for value, units in split.items() if 0 < len(units) <= MAX_VALUE_UNITS}


def _is_said_shorter(
    phrase: str, term: Term, learned: dict[str, Term], titles: Counter[str]
) -> bool:
    """Whether a part says as much, and more often: `backpack` in `leather backpack`."""
    keys = phrase.split(" ")
    parts = (
        " ".join(keys[first:last])
        for first in range(len(keys))
        for last in range(first + 1, len(keys) + 1)
        if last - first < len(keys)
    )
    return any(
        part in learned
        and learned[part].value == term.value
        and learned[part].confidence >= term.confidence - _SAME_SHARE
        and titles[part] > _MORE_OFTEN * titles[phrase]
        for part in parts
    )


def _names_of(units: list[Unit], with_words: bool) -> Iterator[tuple[str, bool]]:
    """Phrases for a value, and whether they are only a word of it: `samsung` of two words."""
    yield phrase_of(units), False
    if with_words and len(units) > 1:
        for unit in units:
            if unit.key not in STOP_KEYS and not unit.is_cjk and len(unit.word) > 2:
                yield unit.key, True


def _phrases(units: Sequence[Unit]) -> Iterator[str]:
    """Words and pairs of words; of Chinese, those of two to four characters."""
    words = words_of(units)
    for number, (first, end) in enumerate(words):
        for last in (end, *(pair_end for _, pair_end in words[number + 1 : number + 2])):
            part = units[first:last]
            if not {part[0].key, part[-1].key} & STOP_KEYS and _is_phrase(part):
                yield phrase_of(part)


def _is_phrase(units: Sequence[Unit]) -> bool:
    if all(unit.key in EMPTY_KEYS for unit in units):
        return False
    characters = sum(unit.is_cjk for unit in units)
    return not characters or 1 < characters == len(units) <= _MAX_CHARACTERS


def _most_units(terms: dict[str, Term]) -> int:
    return max((phrase.count(" ") + 1 for phrase in terms), default=0)


def _longest(
    terms: dict[str, Term], most_units: int, units: Sequence[Unit], taken: set[int]
) -> Iterator[Match]:
    keys = [unit.key for unit in units]
    first = 0
    while first < len(units):
        for last in range(min(len(units), first + most_units), first, -1):
            term = terms.get(" ".join(keys[first:last]))
            if term and not taken.intersection(range(first, last)):
                yield Match(term, first, last)
                first = last - 1
                break
        first += 1


class _PhraseCounts:
    """In how many titles each phrase stands, alone and together with the values of a column."""

    def __init__(self, titles: list[list[Unit]], wanted: set[str]) -> None:
        longest = max((phrase.count(" ") + 1 for phrase in wanted), default=0)
        numbers: dict[str, int] = {}
        places: list[int] = []
        rows: list[int] = []
        for row, units in enumerate(titles):
            for phrase in {*_phrases(units), *_those_wanted(units, wanted, longest)}:
                places.append(numbers.setdefault(phrase, len(numbers)))
                rows.append(row)
        self._names = np.array(list(numbers), dtype=object)
        self._numbers = numbers
        self._places, self._rows = np.array(places, np.int64), np.array(rows, np.int64)
        self._totals = np.bincount(self._places, minlength=len(numbers))
        frequent = np.flatnonzero(self._totals >= MIN_TITLES)
        self.frequent = frozenset(self._names[frequent].tolist())

    def of(self, phrase: str) -> int:
        number = self._numbers.get(phrase)
        return 0 if number is None else int(self._totals[number])

    def joint(self, values: pl.Series) -> dict[tuple[str, str], int]:
        """By phrase and value the number of titles with both."""
        names = values.drop_nulls().unique(maintain_order=True)
        codes = values.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64)
        of_pair = codes.to_numpy()[self._rows] if len(self._rows) else self._rows
        known = of_pair >= 0
        pairs = self._places[known] * max(len(names), 1) + of_pair[known]
        distinct, numbers = np.unique(pairs, return_counts=True)
        phrases, found = np.divmod(distinct, max(len(names), 1))
        listed = names.to_list()
        return {
            (phrase, listed[code]): number
            for phrase, code, number in zip(
                self._names[phrases].tolist(), found.tolist(), numbers.tolist(), strict=True
            )
        }


def _those_wanted(units: Sequence[Unit], wanted: set[str], longest: int) -> Iterator[str]:
    keys = [unit.key for unit in units]
    for first in range(len(keys)):
        for last in range(first + 1, min(len(keys), first + longest) + 1):
            phrase = " ".join(keys[first:last])
            if phrase in wanted:
                yield phrase

"""Completions while a shopper types: titles, categories, brands and known queries, by popularity.

A sorted list of every place where a word (in Chinese a character) of an entry begins answers a
prefix by two binary searches. What matches nothing is spelled anew. User text is only compared.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from rapidfuzz import process
from rapidfuzz.distance import OSA

from recsys import schema
from recsys.data.text import clean_texts
from recsys.engine.query.units import Unit, fold, is_cjk, split_units

Kind = Literal["query", "category", "brand", "title"]
MAX_ENTRIES = 200_000
"""The most popular entries are kept."""
MAX_PREFIX_CHARS = 64
_MAX_STARTS = 12
_KEY_CHARS = 32
_AT_THE_START = 4.0
"""An entry that begins with the text counts as this many times as popular."""
_COMPARED = 400
_MIN_CORRECTED = 4
_TWO_EDITS_FROM = 8
_HIGHEST = "\U0010ffff"


class Suggestion(NamedTuple):
    """A completion: text, what it is, and its weight (events, or times it was asked)."""

    text: str
    kind: Kind
    weight: float


class Suggester:
    """Completes what is typed. Reads only, so threads may share it."""

    def __init__(self, entries: Iterable[Suggestion]) -> None:
        """`entries` of equal folded text are one: the heaviest."""
        best: dict[str, Suggestion] = {}
        for entry in sorted(entries, key=lambda e: (-e.weight, e.text, e.kind)):
            best.setdefault(fold(entry.text), entry)
        self._entries = list(best.values())[:MAX_ENTRIES]
        self._folded = list(best)[:MAX_ENTRIES]
        units = [split_units(text) for text in self._folded]
        keys, owners, firsts = _starts(self._folded, units)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self._keys = [keys[place] for place in order]
        self._owners = np.array(owners, dtype=np.int64)[order]
        weights = np.log1p([max(e.weight, 0.0) for e in self._entries])
        first = np.array(firsts, dtype=np.float64)[order]
        self._scores = weights[self._owners] + np.log(_AT_THE_START) * first
        self._words = _words(units)

    @classmethod
    def of_catalogue(cls, items: pa.Table, queries: Mapping[str, float] | None = None) -> Suggester:
        """Titles, categories and brands, each as popular as its events; `queries` as often asked.

        `queries`: known queries, which must not name a person: nothing is filtered here.
        """
        frame = pl.DataFrame(pl.from_arrow(items))
        if schema.REMOVED in frame.columns:
            frame = frame.filter(~pl.col(schema.REMOVED))
        if schema.TRAIN_COUNT not in frame.columns:
            frame = frame.with_columns(pl.lit(0).alias(schema.TRAIN_COUNT))
        entries = [Suggestion(text, "query", n) for text, n in (queries or {}).items()]
        kinds: dict[str, Kind] = {"category": "category", "brand": "brand", "title": "title"}
        for column, kind in kinds.items():
            if column in frame.columns:
                sums = frame.group_by(column).agg(pl.col(schema.TRAIN_COUNT).sum())
                entries += [Suggestion(t, kind, float(n)) for t, n in sums.iter_rows() if t]
        return cls(entries)

    def suggest(self, text: str, top_k: int = 8) -> list[Suggestion]:
        """At most `top_k` completions, best first; none for a text without letters or digits."""
        typed = _normalised(text)
        units = split_units(typed)
        if not units or top_k < 1:
            return []
        found = self._complete(typed, units, top_k)
        if not found:
            respelled = self._respelled(typed, units)
            found = self._complete(respelled, split_units(respelled), top_k) if respelled else []
        return [self._entries[owner] for owner in found]

    def _complete(self, typed: str, units: list[Unit], top_k: int) -> list[int]:
        """Entries in which the text stands as typed, then those with all its words."""
        begin = units[0].start
        found = self._holding(typed[begin:], [], top_k)
        if len(found) < top_k and len(units) > 1:
            longest = max(units[:-1], key=lambda u: (u.end - u.start, -u.start))
            words = [unit.word for unit in units]
            more = self._holding(longest.word, words, top_k)
            found += [owner for owner in more if owner not in found]
        return found[:top_k]

    def _holding(self, prefix: str, words: list[str], top_k: int) -> list[int]:
        key = prefix[:_KEY_CHARS]
        low, high = bisect_left(self._keys, key), bisect_left(self._keys, key + _HIGHEST)
        scores = self._scores[low:high]
        if len(scores) > _COMPARED:
            near = np.argpartition(-scores, _COMPARED)[:_COMPARED]
            near = near[np.argsort(-scores[near], kind="stable")]
        else:
            near = np.argsort(-scores, kind="stable")
        owners = dict.fromkeys(self._owners[low:high][near].tolist())
        fitting = (
            owner
            for owner in owners
            if (words or prefix in self._folded[owner])
            and all(_begins_a_word(word, self._folded[owner]) for word in words)
        )
        return [owner for owner, _ in zip(fitting, range(top_k), strict=False)]

    def _respelled(self, typed: str, units: list[Unit]) -> str | None:
        """The text with each word that begins no known one replaced by the nearest; else None."""
        respelled = typed
        for unit in reversed(units):
            word = self._nearest(unit.word, is_prefix=unit is units[-1])
            respelled = respelled[: unit.start] + word + respelled[unit.end :]
        return respelled if respelled != typed else None

    def _nearest(self, word: str, is_prefix: bool) -> str:
        if len(word) < _MIN_CORRECTED or is_cjk(word) or not word.isalpha():
            return word
        edits = 2 if len(word) >= _TWO_EDITS_FROM else 1
        # A first letter is seldom wrong, and 26 times fewer words are compared.
        candidates = self._words.get(word[0], {})
        if is_prefix:
            near: Counter[str] = Counter()
            for known, count in candidates.items():
                near[known[: len(word)]] += count
        else:
            near = Counter(candidates)
        found = process.extract(word, near.keys(), scorer=OSA.distance, score_cutoff=edits)
        return min(found, key=lambda f: (f[1], -near[f[0]]))[0] if found else word


def _normalised(text: str) -> str:
    plain = text[: 4 * MAX_PREFIX_CHARS].encode("utf-8", "replace").decode()
    return fold(clean_texts([plain], MAX_PREFIX_CHARS)[0] or "")


def _starts(texts: list[str], units: list[list[Unit]]) -> tuple[list[str], list[int], list[bool]]:
    """What follows from each place where a word begins, whose it is, and if it is the first."""
    keys, owners, firsts = [], [], []
    for owner, (text, parts) in enumerate(zip(texts, units, strict=True)):
        for number, unit in enumerate(parts[:_MAX_STARTS]):
            keys.append(text[unit.start : unit.start + _KEY_CHARS])
            owners.append(owner)
            firsts.append(number == 0)
    return keys, owners, firsts


def _words(units: list[list[Unit]]) -> dict[str, Counter[str]]:
    """By first letter how often each word is written."""
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for parts in units:
        for unit in parts:
            if unit.word.isalpha() and not unit.is_cjk:
                words[unit.word[0]][unit.word] += 1
    return words


def _begins_a_word(word: str, text: str) -> bool:
    """Whether a word of the text begins so; Chinese has no places where words begin."""
    place = text.find(word)
    while place >= 0:
        if is_cjk(word) or place == 0 or not text[place - 1].isalnum() or is_cjk(text[place - 1]):
            return True
        place = text.find(word, place + 1)
    return False

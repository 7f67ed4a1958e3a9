"""A text as units to look up: one a word, one a character of Chinese and Japanese.

Units know where they stand, so that what is found can be shown in the text. No word boundaries are
guessed: a Chinese phrase is found wherever its characters stand.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import rjieba
import Stemmer

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
"""Han, and the Japanese syllables written with it."""
_MARKED = (
    "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0dff\u0e00-\u0eff"
    "\u1000-\u109f\u1780-\u17ff"
)
"""Accents, Hebrew and Arabic points, and scripts whose vowels Python takes for no letters."""

_UNIT = re.compile(rf"[{CJK}]|[0-9]{{1,9}}[.,][0-9]{{1,9}}|(?:[^\W_{CJK}]|[{_MARKED}])+")
_CJK_CHARACTER = re.compile(f"[{CJK}]")
_MIN_STEMMED = 4


class Unit(NamedTuple):
    """A word or character as folded, the key it is looked up by, and its place in the text."""

    word: str
    key: str
    start: int
    end: int

    @property
    def is_cjk(self) -> bool:
        """Whether it is a character rather than a word."""
        return is_cjk(self.word)


def fold(text: str) -> str:
    """Lower case of the same length: places in the one are places in the other."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def is_cjk(word: str) -> bool:
    """Whether a text begins with a Chinese or Japanese character."""
    return _CJK_CHARACTER.match(word) is not None


def split_units(text: str) -> list[Unit]:
    """The units of a text, in order. Linear in its length."""
    return [
        Unit(match[0], key_of(match[0]), match.start(), match.end())
        for match in _UNIT.finditer(fold(text))
    ]


@functools.lru_cache(maxsize=100_000)
def key_of(word: str) -> str:
    """The stem of an English-looking word (Porter 2 by Snowball); any other word itself."""
    if len(word) < _MIN_STEMMED or not (word.isascii() and word.isalpha()):
        return word
    return _stemmer().stemWord(word)


@functools.cache
def _stemmer() -> Stemmer.Stemmer:
    return Stemmer.Stemmer("english")


def words_of(units: Sequence[Unit]) -> list[tuple[int, int]]:
    """Where words begin and end (exclusive) among the units: Chinese ones as jieba cuts them."""
    words: list[tuple[int, int]] = []
    first = 0
    while first < len(units):
        last = first + 1
        while last < len(units) and units[first].is_cjk and _goes_on(units[last - 1], units[last]):
            last += 1
        lengths = [1]
        if last > first + 1:
            lengths = [len(w) for w in rjieba.cut("".join(u.word for u in units[first:last]))]
        for length in lengths:
            words.append((first, first + length))
            first += length
    return words


def _goes_on(unit: Unit, following: Unit) -> bool:
    return following.is_cjk and unit.end == following.start


def phrase_of(units: Sequence[Unit]) -> str:
    """The key of units in a row."""
    return " ".join(unit.key for unit in units)

"""Spelling against the words of the catalogue: a word nobody writes becomes one that many do."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from rapidfuzz import process
from rapidfuzz.distance import OSA

from recsys.engine.query.query_words import KNOWN_WORDS
from recsys.engine.query.units import is_cjk, key_of

MIN_LENGTH = 4
_TWO_EDITS_FROM = 8
_FREE_FROM = 6
"""A shorter word keeps its first letter: `year` is no misspelled `gear`."""
_FREQUENCY_WEIGHT = 0.02
"""A tenfold frequency weighs as much as this share of similarity: it parts ties, no more."""
_SAME_BEGINNING = 0.03
_CANDIDATES = 8
_ASKED = 10
"""How often the words of queries, such as `without`, are taken to be written."""
_MAX_LENGTH = 32


class Speller:
    """Finds the word of a vocabulary that was probably meant."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        """`counts`: how often each word (lower case) is written."""
        asked = dict.fromkeys(KNOWN_WORDS, _ASKED)
        self._counts = {w: n for w, n in (asked | dict(counts)).items() if _is_correctable(w)}
        self._keys = {key_of(word) for word in counts} | {key_of(word) for word in KNOWN_WORDS}
        self._by_length: dict[int, list[str]] = defaultdict(list)
        for word in self._counts:
            self._by_length[len(word)].append(word)

    def correct(self, word: str) -> tuple[str, float] | None:
        """The word meant and how sure that is; None for a known, short or numeric word.

        One edit (a swap of neighbours is one, as in optimal string alignment), from eight letters
        on two; a plural may become a singular. Never for a word with digits or in Chinese.
        """
        if not _is_correctable(word) or key_of(word) in self._keys or word in KNOWN_WORDS:
            return None
        found = self._nearest(word)
        return self._nearest(word[:-1]) if found is None and word.endswith("s") else found

    def _nearest(self, word: str) -> tuple[str, float] | None:
        edits = 2 if len(word) >= _TWO_EDITS_FROM else 1
        near = [w for n in range(-edits, edits + 1) for w in self._by_length.get(len(word) + n, ())]
        if len(word) < _FREE_FROM:
            near = [w for w in near if w[0] == word[0]]
        found = process.extract(
            word, near, scorer=OSA.distance, score_cutoff=edits, limit=_CANDIDATES
        )
        scored = [(self._score(word, w, int(d)), w, int(d)) for w, d, _ in found]
        if not scored:
            return None
        _, best, distance = max(scored)
        return best, round(1 - distance / len(word), 3)

    def _score(self, word: str, candidate: str, distance: int) -> float:
        similarity = 1 - distance / len(word)
        frequency = _FREQUENCY_WEIGHT * math.log10(self._counts[candidate])
        return similarity + frequency + _SAME_BEGINNING * (word[0] == candidate[0])


def _is_correctable(word: str) -> bool:
    return MIN_LENGTH <= len(word) <= _MAX_LENGTH and word.isalpha() and not is_cjk(word)

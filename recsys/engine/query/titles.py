"""Which titles a query names: an inverted index of the units of titles. Shapes: N items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.engine.query.units import Unit

_MAX_READ = 50_000
"""Places in titles that are looked at: the rarest units first, which find the title if any do."""
_COMPARED = 32


@dataclass(frozen=True, slots=True)
class TitleMatch:
    """The best title for a query, as shares of 0 to 1.

    `asked` of the query's units, rare ones weighing more, are in the title; `covered` of the
    title's units are in the query; `matches` titles hold as much of the query.
    """

    asked: float
    covered: float
    matches: int


class TitleIndex:
    """Finds titles by the units they share with a query."""

    def __init__(self, titles: Sequence[Sequence[Unit]]) -> None:
        self._keys = [frozenset(unit.key for unit in units) for units in titles]
        counts = Counter(key for keys in self._keys for key in keys)
        numbers = {key: number for number, key in enumerate(counts)}
        rows = np.repeat(np.arange(len(titles)), [len(keys) for keys in self._keys])
        flat = np.fromiter((numbers[k] for keys in self._keys for k in keys), np.int64, len(rows))
        self._rows = rows[np.argsort(flat, kind="stable")].astype(np.int32)
        self._ends = np.cumsum(list(counts.values()), dtype=np.int64)
        self._numbers = numbers

    def best(self, units: Sequence[Unit]) -> TitleMatch:
        """The title that holds most of the query, and of such the shortest."""
        asked = {unit.key for unit in units}
        weights = {key: self._weight(key) for key in asked}
        known = sorted((k for k in asked if k in self._numbers), key=self._titles)
        if not known:
            return TitleMatch(0.0, 0.0, 0)
        rows, shared = self._sharing(known, weights)
        nearest = np.arange(len(shared))
        if len(shared) > _COMPARED:
            nearest = np.argpartition(-shared, _COMPARED)[:_COMPARED]
        candidates = [self._keys[row] for row in rows[nearest]]
        compared = [
            (sum(weights[k] for k in asked & keys), len(asked & keys) / len(keys))
            for keys in candidates
        ]
        held, covered = max(compared)
        matches = int((shared >= shared.max() - 1e-6).sum())
        return TitleMatch(held / sum(weights.values()), covered, matches)

    def _sharing(
        self, known: list[str], weights: dict[str, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Titles and the weight of what they share with the query, of the rarest units."""
        parts, found, left = [], [], _MAX_READ
        for key in known:
            end = int(self._ends[self._numbers[key]])
            rows = self._rows[end - self._titles(key) : end][:left]
            parts.append(rows)
            found.append(np.full(len(rows), weights[key]))
            left -= len(rows)
        distinct, inverse = np.unique(np.concatenate(parts), return_inverse=True)
        return distinct, np.bincount(inverse, np.concatenate(found), len(distinct))

    def _titles(self, key: str) -> int:
        number = self._numbers[key]
        return int(self._ends[number] - (self._ends[number - 1] if number else 0))

    def _weight(self, key: str) -> float:
        """Inverse document frequency; a unit that no title holds weighs like the rarest."""
        titles = self._titles(key) if key in self._numbers else 0
        return float(np.log1p(len(self._keys) / (titles + 0.5)))

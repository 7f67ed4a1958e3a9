"""What is popular when, in the generated shop: ranks that stay, or that walk day by day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.data.synthetic_catalogue import Catalogue

DAY = 86_400
_SEED = 0x44524946
"""Makes the walk's numbers independent of all others of the seed, which drift must not change."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Popularity by period. `starts` (P,): Unix seconds from which each period counts.

    `shares` (P, N): popularity of an item among those of its type. `type_shares` (P, T): of types.
    `by_type` (N,): items grouped by type; `running` (P * N,): running sum of their shares.
    """

    starts: np.ndarray
    shares: np.ndarray
    type_shares: np.ndarray
    by_type: np.ndarray
    running: np.ndarray

    def period(self, times: np.ndarray) -> np.ndarray:
        """(B,) number of the period of each of the `times` (Unix seconds)."""
        return np.searchsorted(self.starts, times, side="right") - 1

    def draw(
        self, types: np.ndarray, period: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(B, `count`) items of the given `types` (B,), by their popularity in a `period` (B,)."""
        # Shares of each (period, type) sum to one, so group g of the running sum is the interval
        # g .. g + 1; the margin keeps rounding from leaving it.
        group = period * self.type_shares.shape[1] + types
        luck = 1e-6 + rng.random((len(types), count)) * (1 - 2e-6)
        found = np.searchsorted(self.running, group[:, None] + luck, side="right")
        return self.by_type[found % len(self.by_type)]


def make_demand(
    catalogue: Catalogue, start: int, cold_from: int, num_days: int, drift: float, seed: int
) -> Demand:
    """The demand from `start` on; cold items can appear from `cold_from` on (Unix seconds).

    Each day `drift` of what makes an item or a type popular is new: its place is that of a score
    whose correlation with the day before is sqrt(1 - drift). How unequal popularity is stays.
    """
    if not drift:
        type_shares = np.tile(catalogue.type_shares, (2, 1))
        return _demand(catalogue, np.array([start, cold_from]), catalogue.shares, type_shares)
    starts = np.unique(np.append(start + DAY * np.arange(num_days), cold_from))
    days = (starts - start) // DAY
    rng = np.random.default_rng([_SEED, seed])
    warm = np.flatnonzero(~catalogue.cold)
    types, shares = catalogue.types[warm], catalogue.shares[:, warm]
    places = _walk(_scores(types, shares[0], rng), num_days, drift, rng)[days]
    of_items = np.repeat(catalogue.shares[:1], len(starts), axis=0)
    of_items[starts >= cold_from] = catalogue.shares[1]
    for row, time, score in zip(of_items, starts, places, strict=True):
        row[warm] = _by_score(types, shares[int(time >= cold_from)], score)
    one = np.zeros(len(catalogue.type_shares), dtype=np.int64)
    scores = _scores(one, catalogue.type_shares, rng)
    of_types = [
        _by_score(one, catalogue.type_shares, score)
        for score in _walk(scores, num_days, drift, rng)[days]
    ]
    return _demand(catalogue, starts, of_items, np.stack(of_types))


def _demand(
    catalogue: Catalogue, starts: np.ndarray, shares: np.ndarray, type_shares: np.ndarray
) -> Demand:
    by_type = catalogue.by_type
    return Demand(starts, shares, type_shares, by_type, np.cumsum(shares[:, by_type]))


def _scores(groups: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # Normal scores in the order of the shares within each group, so that day 0 is as without drift.
    drawn = rng.standard_normal(len(shares))
    return _by_score(groups, drawn, shares)


def _walk(scores: np.ndarray, num_days: int, drift: float, rng: np.random.Generator) -> np.ndarray:
    # (D, N) scores of each day; their variance stays.
    found = [scores]
    for _ in range(num_days - 1):
        fresh = rng.standard_normal(len(scores))
        found.append((1 - drift) ** 0.5 * found[-1] + drift**0.5 * fresh)
    return np.stack(found)


def _by_score(groups: np.ndarray, values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    # The values of each group, dealt out anew: the largest to who has the highest score.
    dealt = np.empty_like(values)
    dealt[np.lexsort((-scores, groups))] = values[np.lexsort((-values, groups))]
    return dealt

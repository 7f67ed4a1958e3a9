"""Settings of a forecast chosen on held-out windows, and the forecast that they make.

A window is `days` days of which nothing before its first column is known to the forecast. Items
that had no event before a window ("new") are judged apart from the others: what is expected of
them comes from the prior alone, and is far less sure.

Shapes: N items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.bulk.daily_counts import DailyCounts
from recsys.bulk.intervals import fit_dispersion, interval, log_likelihood
from recsys.bulk.rates import Rates, Smoothed, days_ahead, level_of, smooth

HALF_LIVES = (7.0, 14.0, 28.0, 56.0, 112.0)
"""Days after which a count weighs half."""
LEVEL_HALF_LIVES = (3.5, 7.0, 14.0, 28.0)
"""The same for the events of all items together, which are many, so that it may be short."""
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Days of an item's own counts that the prior is worth."""
EVEN_SHARE = 0.02
"""Share of the recommender's demand spread evenly over all items: what is in nobody's list is
taken now and then."""


@dataclass(frozen=True)
class Calibration:
    """What turns an expected number into a calibrated one, and how sure it is."""

    scale: float = 1.0
    dispersion: float = 0.0


@dataclass(frozen=True)
class Settings:
    """Chosen settings, half-lives and `strength` in days, for known and for new items."""

    level_half_life: float
    half_life: float
    strength: float
    known: Calibration
    new: Calibration


@dataclass(frozen=True)
class Forecast:
    """(N,) expected events, whole bounds, whether most comes from own counts, and who is new."""

    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    by_own_counts: np.ndarray
    is_new: np.ndarray


def prior_shares(num_items: int, shares: np.ndarray | None) -> np.ndarray:
    """(N,) shares of all events before an item's own counts are known: the recommender's, or even
    ones where there is no recommender."""
    even = np.full(num_items, 1.0 / num_items)
    return even if shares is None else (1 - EVEN_SHARE) * shares + EVEN_SHARE * even


def choose_settings(
    daily: DailyCounts, ends: Sequence[int], days: int, priors: Mapping[int, np.ndarray]
) -> Settings:
    """The best settings for the windows that begin at columns `ends`; `priors` are shares (N,).

    The level's half-life is the one that comes nearest to the windows' totals. Half-life and
    strength are those by which the counts of known items are most likely as Poisson counts at the
    best scale; the scale is what was taken over what was expected.
    """
    level_half_life = _choose_level(daily, ends, days)
    counts = np.concatenate([events_of(daily, end, days) for end in ends])
    best, chosen = -np.inf, (HALF_LIVES[0], STRENGTHS[0], Rates(counts, counts, counts > 0))
    for half_life in HALF_LIVES:
        smoothed = {
            end: smooth(daily, end, half_life, level_of(daily, end, level_half_life))
            for end in ends
        }
        for strength in STRENGTHS:
            found = _stack(daily, smoothed, strength, days, priors)
            known = found.has_events
            scale = fit_scale(counts[known], found.rates[known])
            likely = log_likelihood(counts[known], scale * found.rates[known], 0.0)
            if likely > best:
                best, chosen = likely, (half_life, strength, found)
    half_life, strength, found = chosen
    return Settings(
        level_half_life,
        half_life,
        strength,
        _calibrate(counts[found.has_events], found.rates[found.has_events]),
        _calibrate(counts[~found.has_events], found.rates[~found.has_events]),
    )


def _choose_level(daily: DailyCounts, ends: Sequence[int], days: int) -> float:
    """The half-life with the least sum of |ln(taken / expected)|, each drawn by one event."""

    def error(half_life: float) -> float:
        expected = [level_of(daily, e, half_life) * days_ahead(daily, e, days) for e in ends]
        taken = [events_of(daily, end, days).sum() for end in ends]
        return float(np.abs(np.log1p(taken) - np.log1p(expected)).sum())

    return min(LEVEL_HALF_LIVES, key=error)


def _stack(
    daily: DailyCounts,
    smoothed: Mapping[int, Smoothed],
    strength: float,
    days: int,
    priors: Mapping[int, np.ndarray],
) -> Rates:
    """What is expected in several windows, one after another; not scaled."""
    found = {end: one.rates(priors[end], strength) for end, one in smoothed.items()}
    worth = {end: days_ahead(daily, end, days) for end in smoothed}
    return Rates(
        np.concatenate([found[end].rates * worth[end] for end in found]),
        np.concatenate([found[end].own * worth[end] for end in found]),
        np.concatenate([found[end].has_events for end in found]),
    )


def _calibrate(counts: np.ndarray, rates: np.ndarray) -> Calibration:
    scale = fit_scale(counts, rates)
    return Calibration(scale, fit_dispersion(counts, scale * rates))


def fit_scale(actual: np.ndarray, expected: np.ndarray) -> float:
    """What was taken over what was expected, drawn to 1 as by one event."""
    return float((actual.sum() + 1) / (expected.sum() + 1))


def events_of(daily: DailyCounts, end: int, days: int) -> np.ndarray:
    """(N,) the events of the window that begins at column `end`."""
    return daily.counts[:, end : end + days].sum(1, dtype=np.float64)


def forecast_items(
    settings: Settings,
    daily: DailyCounts,
    end: int,
    days: int,
    prior: np.ndarray,
    probability: float,
) -> Forecast:
    """What is expected in the `days` days from column `end` on; `prior` (N,) are shares."""
    level = level_of(daily, end, settings.level_half_life)
    found = smooth(daily, end, settings.half_life, level).rates(prior, settings.strength)
    known, new = settings.known, settings.new
    scale = np.where(found.has_events, known.scale, new.scale)
    dispersion = np.where(found.has_events, known.dispersion, new.dispersion)
    expected = scale * found.rates * days_ahead(daily, end, days)
    low, high = interval(expected, dispersion, probability)
    by_own = found.own * 2 >= found.rates
    return Forecast(expected, low, high, by_own & found.has_events, ~found.has_events)

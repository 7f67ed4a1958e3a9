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
from recsys.bulk.rates import Rates, Smoothed, days_ahead, smooth, total_rate

HALF_LIVES = (7.0, 14.0, 28.0, 56.0, 112.0)
"""Days after which a count weighs half."""
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Days of an item's own counts that the prior is worth."""
EVEN_SHARE = 0.02
"""Share of the recommender's demand spread evenly over all items: what is in nobody's list is
taken now and then."""


@dataclass(frozen=True)
class Level:
    """What turns an expected number into a calibrated one, and how sure it is."""

    scale: float = 1.0
    dispersion: float = 0.0


@dataclass(frozen=True)
class Settings:
    """Chosen settings: `half_life` and `strength` in days, levels of known and of new items."""

    half_life: float
    strength: float
    known: Level
    new: Level


@dataclass(frozen=True)
class Forecast:
    """(N,) expected events, whole bounds, whether most comes from own counts, and who is new."""

    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    by_own_counts: np.ndarray
    is_new: np.ndarray


def prior_of(daily: DailyCounts, end: int, shares: np.ndarray | None) -> np.ndarray:
    """(N,) daily rates before an item's own counts: all events, divided by the recommender's
    shares (N,), or evenly where there is no recommender."""
    even = np.full(len(daily.counts), 1.0 / len(daily.counts))
    total = total_rate(daily, end)
    if shares is None:
        return total * even
    return total * ((1 - EVEN_SHARE) * shares + EVEN_SHARE * even)


def choose_settings(
    daily: DailyCounts, ends: Sequence[int], days: int, priors: Mapping[int, np.ndarray]
) -> Settings:
    """The most likely settings for the windows that begin at columns `ends`.

    Half-life and strength are those by which the counts of known items are most likely as Poisson
    counts at the best scale; the scale is what was taken over what was expected.
    """
    counts = np.concatenate([events_of(daily, end, days) for end in ends])
    best, chosen = -np.inf, (HALF_LIVES[0], STRENGTHS[0], Rates(counts, counts, counts > 0))
    for half_life in HALF_LIVES:
        smoothed = {end: smooth(daily, end, half_life) for end in ends}
        for strength in STRENGTHS:
            found = _stack(daily, smoothed, strength, days, priors)
            known = found.has_events
            scale = fit_scale(counts[known], found.rates[known])
            likely = log_likelihood(counts[known], scale * found.rates[known], 0.0)
            if likely > best:
                best, chosen = likely, (half_life, strength, found)
    half_life, strength, found = chosen
    return Settings(
        half_life,
        strength,
        _level(counts[found.has_events], found.rates[found.has_events]),
        _level(counts[~found.has_events], found.rates[~found.has_events]),
    )


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


def _level(counts: np.ndarray, rates: np.ndarray) -> Level:
    scale = fit_scale(counts, rates)
    return Level(scale, fit_dispersion(counts, scale * rates))


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
    """What is expected in the `days` days from column `end` on."""
    found = smooth(daily, end, settings.half_life).rates(prior, settings.strength)
    known, new = settings.known, settings.new
    scale = np.where(found.has_events, known.scale, new.scale)
    dispersion = np.where(found.has_events, known.dispersion, new.dispersion)
    expected = scale * found.rates * days_ahead(daily, end, days)
    low, high = interval(expected, dispersion, probability)
    by_own = found.own * 2 >= found.rates
    return Forecast(expected, low, high, by_own & found.has_events, ~found.has_events)

"""Daily rates of items: smoothed counts, weekdays, and a prior where little is known.

With c[i, d] the events of item i on day d, w(d) the factor of day d's weekday, and weights
a[d] = 2^-(age of d / half-life), an item's daily rate is

    rate[i] = (strength * prior[i] + sum_d a[d] c[i, d]) / (strength + sum_d a[d] w(d)),

both sums from the day of the item's first event on. Without a prior this is the maximum likelihood
of Poisson counts with weights (the smoothing of Brown 1959, "Statistical forecasting for inventory
control", begun at the item's first day); with it, it is the mean of a rate whose prior is a gamma
distribution of mean prior[i] that is worth `strength` days (Gelman et al., "Bayesian Data
Analysis", 3rd edition, section 2.6). An item without an event so far has the prior alone.

Shapes: N items, D days, H days to look ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.bulk.daily_counts import DailyCounts

WEEK = 7
THURSDAY = 3
"""The weekday of day 0, 1970-01-01, where Monday is 0."""
TOTAL_HALF_LIFE = 28.0
"""Days for the rate of all items together, which is known so well that it may be quick."""


@dataclass(frozen=True)
class Rates:
    """Daily rates (N,), what of each its own counts gave (N,), and which items had events (N,)."""

    rates: np.ndarray
    own: np.ndarray
    has_events: np.ndarray


def weekday_of(days: np.ndarray) -> np.ndarray:
    """0, Monday, to 6 of days counted since 1970."""
    return (days + THURSDAY) % WEEK


def weekday_factors(daily: DailyCounts, end: int) -> np.ndarray:
    """(7,) events of a weekday over those of the mean day, before column `end`; their mean is 1.

    Each weekday has one more day that is like the mean: with a week of data factors are half as
    far from 1 as that week says.
    """
    totals = daily.counts[:, :end].sum(0, dtype=np.float64)
    if not totals.sum():
        return np.ones(WEEK)
    weekdays = weekday_of(daily.first_day + np.arange(end))
    sums = np.bincount(weekdays, totals, WEEK) + totals.mean()
    means = sums / (np.bincount(weekdays, minlength=WEEK) + 1)
    return means / means.mean()


def factors_of_days(daily: DailyCounts, end: int, num_days: int) -> np.ndarray:
    """(`num_days`,) the weekdays' factors as known before column `end`, from column 0 on."""
    return weekday_factors(daily, end)[weekday_of(daily.first_day + np.arange(num_days))]


@dataclass(frozen=True)
class Smoothed:
    """Weighted events (N,) and weighted days (N,) of each item, and which items had events (N,)."""

    events: np.ndarray
    days: np.ndarray
    has_events: np.ndarray

    def rates(self, prior: np.ndarray, strength: float) -> Rates:
        """The rates for a prior (N,) that is worth `strength` days."""
        total = np.where(self.has_events, strength + self.days, 1.0)
        own = np.where(self.has_events, self.events / total, 0.0)
        share = np.where(self.has_events, strength / total, 1.0)
        return Rates(own + share * prior, own, self.has_events)


def smooth(daily: DailyCounts, end: int, half_life: float) -> Smoothed:
    """What is known of each item before column `end`; `half_life` is in days."""
    weights = 0.5 ** ((end - 1 - np.arange(end)) / half_life)
    events = daily.counts[:, :end] @ weights
    exposure = weights * factors_of_days(daily, end, end)
    left = np.append(np.cumsum(exposure[::-1])[::-1], 0.0)
    first = daily.first_column
    return Smoothed(events, left[np.minimum(first, end)], first < end)


def total_rate(daily: DailyCounts, end: int) -> float:
    """Events of all items on a mean day, as known before column `end`."""
    weights = 0.5 ** ((end - 1 - np.arange(end)) / TOTAL_HALF_LIFE)
    totals = daily.counts[:, :end].sum(0, dtype=np.float64)
    return float(totals @ weights / (weights @ factors_of_days(daily, end, end)))


def days_ahead(daily: DailyCounts, end: int, num_days: int) -> float:
    """How many mean days the `num_days` days from column `end` on are worth."""
    return float(factors_of_days(daily, end, end + num_days)[end:].sum())


def last_week(daily: DailyCounts, end: int, num_days: int) -> np.ndarray:
    """(N,) the naive forecast: the events of the last seven days, for `num_days` days."""
    return daily.counts[:, end - WEEK : end].sum(1, dtype=np.float64) * num_days / WEEK

"""Daily rates of items: smoothed shares of the shop's level, and a prior where little is known.

With c[i, d] the events of item i on day d, T[d] those of all items, level the events of all items
on a mean day now, and weights a[d] = 2^-(age of d / half-life), an item's daily rate is

    rate[i] = (strength * prior[i] + sum_d a[d] c[i, d]) / (strength + sum_d a[d] T[d] / level),

both sums from the day of the item's first event on: counts over days that are as long as the shop
was busy. So weekdays, holidays and growth, which change all items, are not taken for a change of
one, and an item may be looked at for long while the level follows the last days. Without a prior
this is the maximum likelihood of Poisson counts with weights; with it, it is the mean of a rate
whose prior is a gamma distribution of mean prior[i] that is worth `strength` days (Gelman et al.,
"Bayesian Data Analysis", 3rd edition, section 2.6). An item without an event so far has the prior
alone.

Shapes: N items, D days, H days to look ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.bulk.daily_counts import DailyCounts

WEEK = 7
THURSDAY = 3
"""The weekday of day 0, 1970-01-01, where Monday is 0."""


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
    totals = _totals(daily, end)
    if not totals.sum():
        return np.ones(WEEK)
    weekdays = weekday_of(daily.first_day + np.arange(end))
    sums = np.bincount(weekdays, totals, WEEK) + totals.mean()
    means = sums / (np.bincount(weekdays, minlength=WEEK) + 1)
    return means / means.mean()


def factors_of_days(daily: DailyCounts, end: int, num_days: int) -> np.ndarray:
    """(`num_days`,) the weekdays' factors as known before column `end`, from column 0 on."""
    return weekday_factors(daily, end)[weekday_of(daily.first_day + np.arange(num_days))]


def level_of(daily: DailyCounts, end: int, half_life: float) -> float:
    """Events of all items on a mean day, as known before column `end`; `half_life` is in days."""
    weights = _weights(end, half_life)
    totals = _totals(daily, end)
    return float(totals @ weights / (weights @ factors_of_days(daily, end, end)))


@dataclass(frozen=True)
class Smoothed:
    """Weighted events (N,) and days (N,) of each item, which had events (N,), and the level."""

    events: np.ndarray
    days: np.ndarray
    has_events: np.ndarray
    level: float

    def rates(self, shares: np.ndarray, strength: float) -> Rates:
        """The rates for a prior of these shares (N,) of the level, worth `strength` days.

        Items with events sum to the level: where new items took a part of it, others lost it.
        """
        total = np.where(self.has_events, strength + self.days, 1.0)
        own = np.where(self.has_events, self.events / total, 0.0)
        rates = own + np.where(self.has_events, strength / total, 1.0) * self.level * shares
        known = rates[self.has_events].sum()
        fit = np.where(self.has_events, self.level / known if known else 1.0, 1.0)
        return Rates(fit * rates, fit * own, self.has_events)


def smooth(daily: DailyCounts, end: int, half_life: float, level: float) -> Smoothed:
    """What is known of each item before column `end`; `half_life` is in days."""
    weights = _weights(end, half_life)
    events = daily.counts[:, :end] @ weights
    exposure = weights * _totals(daily, end) / level if level else weights
    left = np.append(np.cumsum(exposure[::-1])[::-1], 0.0)
    first = daily.first_column
    return Smoothed(events, left[np.minimum(first, end)], first < end, level)


def _weights(end: int, half_life: float) -> np.ndarray:
    return 0.5 ** ((end - 1 - np.arange(end)) / half_life)


def _totals(daily: DailyCounts, end: int) -> np.ndarray:
    return daily.counts[:, :end].sum(0, dtype=np.float64)


def days_ahead(daily: DailyCounts, end: int, num_days: int) -> float:
    """How many mean days the `num_days` days from column `end` on are worth."""
    return float(factors_of_days(daily, end, end + num_days)[end:].sum())


def last_week(daily: DailyCounts, end: int, num_days: int) -> np.ndarray:
    """(N,) the naive forecast: the events of the last seven days, for `num_days` days."""
    return daily.counts[:, end - WEEK : end].sum(1, dtype=np.float64) * num_days / WEEK

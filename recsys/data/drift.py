"""How a dataset differs from the one before it.

Published profiles are compared, so nothing that was hidden shows again. Cells hidden on either
side, and categories that either side counts among its others, are compared as one cell; merged
cells can only lower a difference, never raise it.
"""

from __future__ import annotations

import datetime
from collections import Counter

import numpy as np

from recsys.data.profile import (
    OTHER,
    SEGMENTS,
    UNKNOWN_DAY,
    Counts,
    ItemProfile,
    Profile,
    bucket_name,
    bucket_start,
)

STABLE_BELOW, SHIFTED_FROM = 0.1, 0.25
"""The usual rule of thumb for the PSI: Siddiqi, Credit Risk Scorecards (Wiley, 2006). The KS
statistic is read with the same bounds, which is our convention."""
EMPTY_SHARE = 1e-4
"""Added to every cell's share, so that an empty one has a logarithm. It is a share and no count,
so that datasets of unlike size with equal shares have a PSI of 0."""
UNKNOWN = "unknown"
"""The verdict where too much is hidden to compare."""

Columns = tuple[np.ndarray, np.ndarray]
"""Counts of the current and of the previous dataset, cell by cell."""


def compare_profiles(
    current: tuple[Profile, ItemProfile], previous: tuple[Profile, ItemProfile] | None
) -> list[dict] | None:
    """Rows of `what`, `measure` (PSI or KS), `value` and `verdict`; None without a previous.

    `value` is None and the verdict `unknown` where a side is empty or every cell is hidden. Both
    arguments are published profiles. Head, mid and tail take the same share of the events in every
    dataset, by their definition; what drifts is how many items that takes.
    """
    if previous is None:
        return None
    (now, items), (then, items_then) = current, previous
    lengths = _columns(_lengths(now), _lengths(then), now.num_users, then.num_users)
    categories = _columns(
        items.events_by_category,
        items_then.events_by_category,
        items.num_events,
        items_then.num_events,
    )
    return [
        _row("event types", "PSI", psi(*_types(now, then))),
        _row("days of the week", "PSI", psi(_week(now), _week(then))),
        _row("history lengths", "PSI", psi(*lengths)),
        _row("history lengths", "KS", ks(*lengths)),
        _row("categories", "PSI", psi(*categories)),
        _row(
            "items that are head, mid, tail, cold",
            "PSI",
            psi(_segments(items), _segments(items_then)),
        ),
        _row("popularity curve", "KS", _curve_distance(items, items_then)),
    ]


def verdict(value: float | None) -> str:
    """stable < 0.1 <= moderate < 0.25 <= shifted."""
    if value is None:
        return UNKNOWN
    if value < STABLE_BELOW:
        return "stable"
    return "moderate" if value < SHIFTED_FROM else "shifted"


def psi(current: np.ndarray, previous: np.ndarray) -> float | None:
    """Population stability index of counts over the same cells, 0 for equal shares.

    sum((p - q) * ln(p / q)) over shares p and q: Siddiqi, Credit Risk Scorecards (Wiley, 2006);
    it is the divergence of Jeffreys (1946). None where a side has no counts.
    """
    if not current.sum() or not previous.sum():
        return None
    p, q = _smoothed(current), _smoothed(previous)
    return float(np.sum((p - q) * np.log(p / q)))


def ks(current: np.ndarray, previous: np.ndarray) -> float | None:
    """Kolmogorov-Smirnov statistic of counts over the same ordered cells, from 0 to 1.

    The largest difference of the cumulative shares at the cells' ends; within a cell it may be
    larger. None where a side has no counts.
    """
    if not current.sum() or not previous.sum():
        return None
    gap = np.cumsum(current) / current.sum() - np.cumsum(previous) / previous.sum()
    return float(np.abs(gap).max())


def _smoothed(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum() + EMPTY_SHARE


def _row(what: str, measure: str, value: float | None) -> dict:
    rounded = None if value is None else round(value, 4)
    return {"what": what, "measure": measure, "value": rounded, "verdict": verdict(rounded)}


def _types(now: Profile, then: Profile) -> Columns:
    return _columns(now.events_by_type, then.events_by_type, now.num_events, then.num_events)


def _segments(items: ItemProfile) -> np.ndarray:
    return np.array([items.items_by_segment[name] for name in SEGMENTS])


def _lengths(profile: Profile) -> Counts:
    """`users_by_length` with every bucket up to the longest, so that two have one order."""
    longest = max(map(bucket_start, profile.users_by_length), default=0)
    buckets = [bucket_name(exponent) for exponent in range(longest.bit_length() + 1)]
    return {name: profile.users_by_length.get(name, 0) for name in buckets}


def _week(profile: Profile) -> np.ndarray:
    """Events of the published days by day of the week, Monday first, (7,)."""
    week: Counter[int] = Counter()
    for day, count in profile.events_by_day.items():
        if day != UNKNOWN_DAY and count is not None:
            week[datetime.date.fromisoformat(day).weekday()] += count
    return np.array([week[day] for day in range(7)])


def _columns(now: Counts, then: Counts, total: int | None, total_then: int | None) -> Columns:
    """Two breakdowns of their totals over the same cells; what is not comparable is the last.

    No cell where nothing is comparable.
    """
    names = [*now, *(name for name in then if name not in now)]
    pairs = [(_cell(now, name), _cell(then, name)) for name in names if name != OTHER]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    columns = np.array(known, dtype=np.int64).reshape(-1, 2)
    if not columns.any():
        return columns[:0, 0], columns[:0, 1]
    rest = np.array([total or 0, total_then or 0]) - columns.sum(axis=0)
    columns = np.vstack([columns, rest]) if rest.any() else columns
    return columns[:, 0], columns[:, 1]


def _cell(counts: Counts, name: str) -> int | None:
    """The count; None where it is hidden or among the others."""
    return counts.get(name, None if OTHER in counts else 0)


def _curve_distance(now: ItemProfile, then: ItemProfile) -> float | None:
    """Largest difference of the shares of the top items, at the ranks that both curves have."""
    one, other = ({p.rank: p.share for p in profile.popularity} for profile in (now, then))
    gaps = [abs(one[rank] - other[rank]) for rank in one.keys() & other.keys()]
    return max(gaps, default=None)

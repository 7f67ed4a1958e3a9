"""Daily rates by hand, and what must hold of them whatever the counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.bulk.daily_counts import NEVER, DailyCounts, add, counted, empty_counts, span_of
from recsys.bulk.rates import (
    days_ahead,
    last_week,
    smooth,
    total_rate,
    weekday_factors,
    weekday_of,
)
from recsys.schema import SECONDS_A_DAY
from tests.data.made_events import event, events_of

MONDAY = 4  # 1970-01-05
counts = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(14, 30)), elements=st.integers(0, 9)
)


def daily(rows, first_day: int = MONDAY, is_old=None) -> DailyCounts:
    table = np.array(rows, dtype=np.float32)
    return DailyCounts(table, first_day, np.array(is_old or [False] * len(table)))


def test_events_become_counts_by_day_of_the_shops_clock():
    day = SECONDS_A_DAY
    rows = [
        event("u", 1, 5 * day - 1),
        event("v", 1, 5 * day),
        event("v", 1, 6 * day - 1, event_index=1),
        event("u", 0, 3 * day),
        event("u", 2, -1),
    ]
    found = counted(events_of(rows), None, 0)
    triples = sorted(tuple(row.values()) for row in found.to_pylist())
    assert triples == [(0, 3, 1), (1, 4, 1), (1, 5, 2)]
    assert span_of(found).to_pylist() == [{"first": 3, "last": 5}]
    assert counted(events_of(rows), [1], 0).to_pylist() == [{"item": 1, "day": 5, "count": 1}]
    ahead = counted(events_of(rows), None, 8 * 3600)
    assert sorted(r["day"] for r in ahead.to_pylist()) == [3, 5, 6]
    assert len(span_of(counted(events_of(rows[-1:]), None, 0))) == 0


def test_older_events_only_say_that_an_item_is_old():
    found = empty_counts(3, 10, 12)
    add(found, pa.table({"item": [0, 1, 1], "day": [9, 10, 12], "count": [4, 2, 3]}))
    add(found, pa.table({"item": [1], "day": [12], "count": [1]}))
    assert found.counts.tolist() == [[0, 0, 0], [2, 0, 4], [0, 0, 0]]
    assert found.first_column.tolist() == [0, 0, NEVER]


def test_a_rate_by_hand():
    # Weights of the two days are 1/2 and 1; no weekday differs, as each has the same total.
    smoothed = smooth(daily([[2, 4], [4, 2], [0, 0]]), 2, half_life=1.0)
    assert smoothed.events.tolist() == pytest.approx([5.0, 4.0, 0.0])
    assert smoothed.days.tolist() == pytest.approx([1.5, 1.5, 0.0])
    prior = np.array([1.0, 1.0, 0.25])
    assert smoothed.rates(prior, 0.0).rates.tolist() == pytest.approx([5 / 1.5, 4 / 1.5, 0.25])
    found = smoothed.rates(prior, 0.5)
    assert found.rates.tolist() == pytest.approx([5.5 / 2, 4.5 / 2, 0.25])
    assert found.own.tolist() == pytest.approx([2.5, 2.0, 0.0])
    assert found.has_events.tolist() == [True, True, False]


def test_an_item_is_judged_from_its_first_day_on_unless_it_is_old():
    rows = [[0, 0, 3], [0, 0, 3], [6, 6, 0]]
    found = smooth(daily(rows, is_old=[False, True, False]), 3, half_life=1e9).rates(
        np.zeros(3), 0.0
    )
    assert found.rates.tolist() == pytest.approx([3 / 1.0, 3 / 3.0, 12 / 3.0], rel=0.2)


def test_what_comes_after_is_not_known():
    rows = np.random.default_rng(0).integers(0, 5, (3, 30))
    before, after = daily(rows), daily(np.where(np.arange(30) < 20, rows, 99))
    for one, other in zip(
        smooth(before, 20, 9.0).__dict__.values(),
        smooth(after, 20, 9.0).__dict__.values(),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert total_rate(before, 20) == total_rate(after, 20)
    assert days_ahead(before, 20, 7) == days_ahead(after, 20, 7)
    assert np.array_equal(last_week(before, 20, 7), last_week(after, 20, 7))


def test_weekdays_by_hand():
    assert weekday_of(np.array([0, MONDAY, MONDAY + 6])).tolist() == [3, 0, 6]
    # Two weeks that sell 7 on Monday alone: the mean day has 1, so Monday is (14 + 1) / 3 and
    # any other day (0 + 1) / 3 over a mean of 1.
    weeks = daily([[7, 0, 0, 0, 0, 0, 0] * 2])
    assert weekday_factors(weeks, 14).tolist() == pytest.approx([5 / (7 / 7), *[1 / 3] * 6])
    assert days_ahead(weeks, 14, 1) == pytest.approx(5.0)
    assert days_ahead(weeks, 14, 7) == pytest.approx(7.0)
    assert weekday_factors(daily([[0] * 14]), 14).tolist() == [1.0] * 7


def test_a_closed_day_does_not_lower_the_rate():
    # Half a year that sells 10 a day and is closed on Sunday: six days sell 60 in a week.
    open_days = daily([[10, 10, 10, 10, 10, 10, 0] * 26])
    end = open_days.num_days
    rate = smooth(open_days, end, 14.0).rates(np.zeros(1), 0.0).rates[0]
    assert rate * days_ahead(open_days, end, 7) == pytest.approx(60.0, rel=0.01)
    assert rate * days_ahead(open_days, end, 6) == pytest.approx(60.0, rel=0.02)


@settings(deadline=None, max_examples=40)
@given(table=counts, factor=st.integers(2, 5), strength=st.sampled_from([0.0, 1.0, 30.0]))
def test_rates_follow_the_unit_and_lie_between_counts_and_prior(table, factor, strength):
    end = table.shape[1]
    some, more = daily(table), daily(table * factor)
    own = smooth(some, end, 14.0).rates(np.zeros(len(table)), 0.0)
    scaled = smooth(more, end, 14.0).rates(np.zeros(len(table)), 0.0)
    assert scaled.rates == pytest.approx(factor * own.rates, rel=1e-5)
    mixed = smooth(some, end, 14.0).rates(np.ones(len(table)), strength).rates
    low, high = np.minimum(own.rates, 1.0), np.maximum(own.rates, 1.0)
    known = own.has_events
    assert np.all((mixed >= low - 1e-9)[known] & (mixed <= high + 1e-9)[known])
    assert np.all(mixed[~known] == 1.0)
    assert weekday_factors(some, end).mean() == pytest.approx(1.0)


def test_last_week_is_carried_on():
    assert last_week(daily([[100, *[1] * 7], [0, *[0] * 6, 7]]), 8, 14).tolist() == [14.0, 14.0]

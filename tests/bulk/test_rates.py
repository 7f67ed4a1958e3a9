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
    level_of,
    smooth,
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
    # Weights of the two days are 1/2 and 1; both have 6 events, so each is one mean day.
    table = daily([[2, 4], [4, 2], [0, 0]])
    level = level_of(table, 2, 5.0)
    assert level == pytest.approx(6.0)
    smoothed = smooth(table, 2, 1.0, level)
    assert smoothed.events.tolist() == pytest.approx([5.0, 4.0, 0.0])
    assert smoothed.days.tolist() == pytest.approx([1.5, 1.5, 0.0])
    prior = np.array([1.0, 1.0, 0.25]) / 6
    assert smoothed.rates(prior, 0.0).rates.tolist() == pytest.approx([5 / 1.5, 4 / 1.5, 0.25])
    # With half a day of the prior 5.5 / 2 and 4.5 / 2, which together are 5 and are made 6.
    found = smoothed.rates(prior, 0.5)
    assert found.rates.tolist() == pytest.approx([3.3, 2.7, 0.25])
    assert found.own.tolist() == pytest.approx([3.0, 2.4, 0.0])
    assert found.has_events.tolist() == [True, True, False]


def test_an_item_is_judged_from_its_first_day_on_unless_it_is_old():
    table = daily([[0, 0, 3], [0, 0, 3], [6, 6, 0]], is_old=[False, True, False])
    found = smooth(table, 3, 1e9, 6.0).rates(np.zeros(3), 0.0)
    assert found.rates.tolist() == pytest.approx(np.array([3 / 1, 3 / 3, 12 / 3]) * 6 / 8)


def test_growth_of_all_is_not_taken_for_growth_of_one():
    # All items grow by a half each week; half of all is the first item's, then and now.
    weeks = np.repeat(10 * 1.5 ** np.arange(8), 7)
    table = daily([weeks, weeks * 0.8, weeks * 0.2])
    level = level_of(table, 56, 3.5)
    rates = [smooth(table, 56, h, level).rates(np.zeros(3), 0.0).rates for h in (7.0, 112.0)]
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0] == pytest.approx(level * np.array([0.5, 0.4, 0.1]))


def test_a_stronger_prior_brings_rates_nearer_to_it():
    table = daily([[8] * 14, [2] * 14])
    prior = np.array([0.3, 0.7])
    smoothed = smooth(table, 14, 14.0, 10.0)
    firsts = [smoothed.rates(prior, strength).rates[0] for strength in (0.0, 4.0, 64.0, 1e9)]
    assert firsts == sorted(firsts, reverse=True)
    assert (firsts[0], firsts[-1]) == (pytest.approx(8.0), pytest.approx(3.0))


def test_what_new_items_took_is_missing_elsewhere():
    # An item that sold half of all on the last day, where the other sold all before.
    table = daily([[10] * 13 + [5], [0] * 13 + [5]])
    found = smooth(table, 14, 14.0, 10.0).rates(np.zeros(2), 0.0).rates
    assert found.sum() == pytest.approx(10.0)
    assert found[1] == pytest.approx(found[0] * 0.5, rel=0.1)


def test_before_any_event_nothing_is_expected():
    table = daily([[0, 0, 0, 1], [0, 0, 0, 0]], is_old=[True, False])
    found = smooth(table, 3, 7.0, level_of(table, 3, 7.0)).rates(np.full(2, 0.5), 0.0)
    assert found.rates.tolist() == [0.0, 0.0]


def test_what_comes_after_is_not_known():
    rows = np.random.default_rng(0).integers(0, 5, (3, 30))
    before, after = daily(rows), daily(np.where(np.arange(30) < 20, rows, 99))
    ones, others = (smooth(table, 20, 9.0, 5.0) for table in (before, after))
    for name in ("events", "days", "has_events"):
        assert np.array_equal(getattr(ones, name), getattr(others, name))
    assert level_of(before, 20, 9.0) == level_of(after, 20, 9.0)
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
    level = level_of(open_days, end, 14.0)
    [rate] = smooth(open_days, end, 14.0, level).rates(np.zeros(1), 0.0).rates
    assert rate * days_ahead(open_days, end, 7) == pytest.approx(60.0, rel=0.01)
    assert rate * days_ahead(open_days, end, 6) == pytest.approx(60.0, rel=0.02)


@settings(deadline=None, max_examples=40)
@given(table=counts, factor=st.integers(2, 5), strength=st.sampled_from([0.0, 1.0, 30.0]))
def test_rates_follow_the_unit_and_sum_to_the_level(table, factor, strength):
    end, even = table.shape[1], np.full(len(table), 1 / len(table))
    some, more = daily(table), daily(table * factor)
    level, higher = (level_of(one, end, 7.0) for one in (some, more))
    own = smooth(some, end, 14.0, level).rates(even * 0, 0.0)
    scaled = smooth(more, end, 14.0, higher).rates(even * 0, 0.0)
    assert scaled.rates == pytest.approx(factor * own.rates, rel=1e-5)
    mixed = smooth(some, end, 14.0, level).rates(even, strength).rates
    known = own.has_events
    assert mixed[~known] == pytest.approx(level / len(table))
    assert mixed[known].sum() == pytest.approx(level if known.any() else 0.0)
    assert np.all(mixed >= 0)
    assert weekday_factors(some, end).mean() == pytest.approx(1.0)


def test_last_week_is_carried_on():
    assert last_week(daily([[100, *[1] * 7], [0, *[0] * 6, 7]]), 8, 14).tolist() == [14.0, 14.0]

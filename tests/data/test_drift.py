"""Drift: hand-computed values, plain verdicts, and nothing told that was hidden."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.drift import compare_profiles, ks, psi, verdict
from recsys.data.profile import (
    OTHER,
    ItemProfile,
    Profile,
    merge_profiles,
    profile_items,
)

MONDAY, TUESDAY = "2024-01-01", "2024-01-02"


def profile(**changes: object) -> Profile:
    given: dict = {
        "num_users": 100,
        "num_events": 400,
        "events_by_day": {MONDAY: 200, TUESDAY: 200},
        "events_by_type": {"view": 300, "buy": 100},
        "users_by_length": {"1": 20, "2-3": 50, "8-15": 30},
    }
    return Profile(**(given | changes))


def item_profile(counts: list[int], categories: list[str] | None = None) -> ItemProfile:
    columns = {"item_id": [str(n) for n in range(len(counts))]}
    columns |= {"category": categories} if categories else {}
    return profile_items(pa.table(columns), np.array(counts))


ITEMS = item_profile([50, 30, 20, 0], ["a", "b", "a", "b"])


def row(what: str, measure: str, current: tuple, previous: tuple) -> dict:
    rows = compare_profiles(current, previous)
    assert rows is not None
    return next(r for r in rows if (r["what"], r["measure"]) == (what, measure))


def test_the_psi_is_computed_by_hand():
    expected = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)
    assert psi(np.array([50, 50]), np.array([25, 75])) == pytest.approx(expected, rel=1e-3)


def test_an_empty_cell_has_a_finite_psi():
    value = psi(np.array([80, 20]), np.array([100, 0]))
    assert value == pytest.approx(0.2 * math.log(0.2001 / 0.0001) - 0.2 * math.log(0.8001 / 1.0001))
    assert verdict(value) == "shifted"


def test_the_ks_is_the_largest_gap_of_the_cumulative_shares():
    assert ks(np.array([1, 1, 2]), np.array([2, 1, 1])) == pytest.approx(0.25)
    assert ks(np.array([4, 0, 0]), np.array([0, 0, 9])) == 1.0


def test_a_side_without_counts_has_no_value():
    empty, some = np.zeros(2, dtype=np.int64), np.array([1, 2])
    assert [psi(empty, some), psi(some, empty), ks(empty, some), ks(some, empty)] == [None] * 4


cells = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=8).filter(
    lambda pairs: all(sum(side) for side in zip(*pairs, strict=True))
)


@settings(deadline=None, max_examples=100)
@given(pairs=cells, scale=st.integers(1, 1000))
def test_measures_are_symmetric_and_do_not_depend_on_size(pairs, scale):
    now, then = np.array(pairs).T
    for measure in (psi, ks):
        assert measure(now, now * scale) == pytest.approx(0, abs=1e-9)
        assert measure(now, then) == pytest.approx(measure(then, now * scale), abs=1e-9)
        assert measure(now, then) >= 0


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0.0, "stable"),
        (0.0999, "stable"),
        (0.1, "moderate"),
        (0.2499, "moderate"),
        (0.25, "shifted"),
        (None, "unknown"),
    ],
)
def test_verdicts_change_at_a_tenth_and_at_a_quarter(value, word):
    assert verdict(value) == word


def test_without_a_previous_dataset_there_is_nothing_to_say():
    assert compare_profiles((profile(), ITEMS), None) is None


def test_the_same_dataset_is_stable_in_every_row():
    rows = compare_profiles((profile(), ITEMS), (profile(), ITEMS))
    assert rows is not None
    assert len(rows) == 7
    assert {(r["value"], r["verdict"]) for r in rows} == {(0.0, "stable")}


@pytest.mark.parametrize(
    ("what", "measure", "change"),
    [
        ("event types", "PSI", {"events_by_type": {"view": 100, "buy": 300}}),
        ("event types", "PSI", {"events_by_type": {"view": 300, "购买": 100}}),
        ("days of the week", "PSI", {"events_by_day": {MONDAY: 50, TUESDAY: 350}}),
        ("history lengths", "PSI", {"users_by_length": {"1": 80, "2-3": 15, "8-15": 5}}),
        ("history lengths", "KS", {"users_by_length": {"1": 80, "2-3": 15, "8-15": 5}}),
        ("history lengths", "KS", {"users_by_length": {"1": 20, "64-127": 80}}),
    ],
)
def test_one_change_shifts_its_own_rows_alone(what, measure, change):
    changed = profile(**change)
    assert row(what, measure, (changed, ITEMS), (profile(), ITEMS))["verdict"] == "shifted"
    rows = compare_profiles((changed, ITEMS), (profile(), ITEMS))
    assert {r["what"] for r in rows or [] if r["value"] > 0} == {what}


def test_the_ks_of_lengths_takes_buckets_in_their_order():
    now = profile(users_by_length={"8-15": 50, "1": 50})
    then = profile(users_by_length={"1": 50, "2-3": 50})
    assert row("history lengths", "KS", (now, ITEMS), (then, ITEMS))["value"] == 0.5


def test_a_catalogue_that_fewer_items_dominate_has_shifted():
    then, now = item_profile([10] * 100), item_profile([5000, *[10] * 99])
    shape = row("items that are head, mid, tail, cold", "PSI", (profile(), now), (profile(), then))
    curve = row("popularity curve", "KS", (profile(), now), (profile(), then))
    assert (shape["verdict"], curve["verdict"]) == ("shifted", "shifted")
    assert curve["value"] == pytest.approx(5000 / 5990 - 0.01, abs=1e-4)


def test_a_category_that_counts_among_the_others_is_compared_with_them():
    then = ITEMS.model_copy(update={"events_by_category": {"a": 60, OTHER: 40}})
    now = ITEMS.model_copy(update={"events_by_category": {"a": 60, "new": 25, OTHER: 15}})
    assert row("categories", "PSI", (profile(), now), (profile(), then))["value"] == 0.0
    grown = ITEMS.model_copy(update={"events_by_category": {"new": 70, "a": 10, OTHER: 20}})
    assert row("categories", "PSI", (profile(), grown), (profile(), then))["verdict"] == "shifted"


def test_hidden_cells_are_compared_as_one():
    then = profile(events_by_type={"view": 300, "buy": None, "cart": None})
    now = profile(events_by_type={"view": 300, "buy": 95, "cart": 5})
    assert row("event types", "PSI", (now, ITEMS), (then, ITEMS))["value"] == 0.0
    other = profile(events_by_type={"view": 100, "buy": 295, "cart": 5})
    assert row("event types", "PSI", (other, ITEMS), (then, ITEMS))["verdict"] == "shifted"


def test_where_everything_is_hidden_the_verdict_is_unknown():
    hidden = profile().published(1000)
    rows = compare_profiles((hidden, ITEMS.published(1000)), (profile(), ITEMS))
    assert rows is not None
    by_what = {(r["what"], r["measure"]): (r["value"], r["verdict"]) for r in rows}
    of_items = by_what.pop(("items that are head, mid, tail, cold", "PSI"))
    assert of_items == (0.0, "stable")
    assert set(by_what.values()) == {(None, "unknown")}


def test_a_dataset_without_times_or_users_can_be_compared():
    nothing, no_items = merge_profiles([]), item_profile([0, 0])
    rows = compare_profiles((profile(), ITEMS), (nothing, no_items))
    assert rows is not None
    assert {r["verdict"] for r in rows} == {"unknown", "shifted"}

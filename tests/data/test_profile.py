"""Profiles: counted right, merged in any order, published without a count that tells too much."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.history import Sequences
from recsys.data.profile import (
    NO_CATEGORY,
    OTHER,
    SEGMENTS,
    TOP_CATEGORIES,
    ItemProfile,
    Profile,
    item_segments,
    merge_profiles,
    profile_items,
    profile_sequences,
    suppress,
)

NAMES = ("view", "购买")
DAY = 86_400
LEAP_DAY = 19_782 * DAY  # 2024-02-29


def sequences_of(users: list[tuple[str, list[tuple[int, int]]]]) -> Sequences:
    """Sequences of (user, [(timestamp, event)])."""
    flat = [event for _, events in users for event in events]
    columns = np.array(flat, dtype=np.int64).reshape(-1, 2)
    offsets = np.cumsum([0, *(len(events) for _, events in users)])
    ids = pa.array([user for user, _ in users], pa.large_string())
    zeros = np.zeros(len(flat), dtype=np.int8)
    return Sequences(ids, offsets, zeros, columns[:, 0], columns[:, 1].astype(np.int8), zeros)


def profile_of(users: list[tuple[str, list[tuple[int, int]]]]) -> Profile:
    return profile_sequences(sequences_of(users), NAMES)


def test_users_and_events_are_counted_by_day_type_and_length():
    last_second = LEAP_DAY + DAY - 1
    profile = profile_of(
        [
            ("a", [(LEAP_DAY, 0), (last_second, 1), (last_second + 1, 0)]),
            ("b", [(-1, 0)]),
            ("c", [(LEAP_DAY, 0)] * 8),
        ]
    )
    assert (profile.num_users, profile.num_events) == (3, 12)
    assert profile.events_by_day == {"2024-02-29": 10, "2024-03-01": 1, "unknown": 1}
    assert profile.events_by_type == {"view": 11, "购买": 1}
    assert profile.users_by_length == {"1": 1, "2-3": 1, "8-15": 1}


def test_events_without_any_time_have_no_day():
    profile = profile_of([("a", [(-1, 0), (-1, 1)])])
    assert profile.events_by_day == {"unknown": 2}


def test_the_sessions_of_a_user_are_one_user():
    profile = profile_of([("a", [(0, 0)]), ("a", [(9, 0)] * 2), ("b", [(0, 0)]), ("b", [])])
    assert profile.num_users == 2
    assert profile.users_by_length == {"1": 1, "2-3": 1}


def test_no_user_is_an_empty_profile():
    assert profile_of([]) == Profile(events_by_type={"view": 0, "购买": 0})
    assert merge_profiles([]) == Profile()


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 7, 8, 1023, 1024])
def test_a_length_lies_in_its_bucket(length):
    (bucket,) = profile_of([("a", [(0, 0)] * length)]).users_by_length
    low, _, high = bucket.partition("-")
    assert int(low) <= length <= int(high or low)
    assert length < 2 or int(high) == 2 * int(low) - 1


user_lists = st.lists(
    st.lists(
        st.tuples(st.sampled_from([-1, 0, 5, DAY, 3 * DAY, LEAP_DAY]), st.integers(0, 1)),
        min_size=1,
        max_size=9,
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=100)
@given(users=user_lists, seed=st.integers(0, 999))
def test_merging_parts_in_any_order_and_grouping_is_the_profile_of_the_whole(users, seed):
    rng = np.random.default_rng(seed)
    named = [(f"u{number}", events) for number, events in enumerate(users)]
    part_of = rng.integers(3, size=len(named))
    parts = [[named[at] for at in np.flatnonzero(part_of == part)] for part in range(3)]
    a, b, c = (profile_of(parts[at]) for at in rng.permutation(3))
    whole = merge_profiles([profile_of(named)])
    merged = [
        merge_profiles([a, b, c]),
        merge_profiles([merge_profiles([c, b]), a]),
        merge_profiles([b, merge_profiles([a, c])]),
    ]
    assert {profile.model_dump_json() for profile in merged} == {whole.model_dump_json()}
    assert sum(whole.events_by_day.values()) == whole.num_events
    assert sum(whole.events_by_type.values()) == whole.num_events
    assert sum(whole.users_by_length.values()) == whole.num_users


def catalogue(**columns: list) -> pa.Table:
    return pa.table({"item_id": [str(n) for n in range(len([*columns.values()][0]))], **columns})


def test_missing_attributes_are_null_or_empty():
    items = catalogue(
        title=["茶", "", None],
        description=pa.nulls(3),
        category=["a", "b", "c"],
        price=[1.0, None, float("nan")],
    )
    profile = profile_items(items, np.array([1, 1, 1]))
    assert profile.missing == {"title": 2, "description": 3, "category": 0, "brand": 3, "price": 2}


def test_segments_are_cut_at_half_and_at_four_fifths_of_the_events():
    counts = np.array([0, 10, 30, 20, 15, 5, 20, 0])
    masks = item_segments(counts)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "head": [2, 3],
        "mid": [4, 6],
        "tail": [1, 5],
        "cold": [0, 7],
    }


@settings(deadline=None, max_examples=100)
@given(counts=st.lists(st.integers(0, 20), max_size=20))
def test_the_head_is_the_fewest_items_with_half_of_the_events(counts):
    counts = np.array(counts, dtype=np.int64)
    masks = item_segments(counts)
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()
    ordered = np.sort(counts)[::-1]
    for share, names in ((0.5, ["head"]), (0.8, ["head", "mid"])):
        fewest = next(n for n in range(len(counts) + 1) if ordered[:n].sum() >= share * sum(counts))
        assert sum(masks[name].sum() for name in names) == fewest
    assert (counts[masks["cold"]] == 0).all()


def test_popularity_has_log_spaced_ranks_up_to_the_last_item_with_events():
    counts = np.concatenate([np.arange(1, 1001), np.zeros(50, dtype=np.int64)])
    curve = profile_items(catalogue(title=["x"] * 1050), counts).popularity
    assert [point.rank for point in curve][:6] == [1, 2, 3, 4, 5, 6]
    assert len(curve) < 31
    assert curve[0].events == 1000
    assert (curve[-1].rank, curve[-1].events, curve[-1].share) == (1000, 1, 1.0)
    tenth = next(point for point in curve if point.rank == 10)
    assert (tenth.events, tenth.share) == (991, pytest.approx(9955 / 500500))


def test_categories_are_the_most_popular_ones_and_the_others_together():
    names = [f"c{n:02}" for n in range(TOP_CATEGORIES + 3)]
    items = catalogue(title=["x"] * (len(names) + 2), category=[*names, None, ""])
    profile = profile_items(items, np.array([*range(100, 100 - len(names), -1), 300, 4]))
    assert [*profile.events_by_category.items()][:2] == [(NO_CATEGORY, 304), ("c00", 100)]
    assert len(profile.events_by_category) == TOP_CATEGORIES + 1
    assert profile.events_by_category[OTHER] == 81 + 80 + 79 + 78
    assert sum(profile.events_by_category.values()) == profile.num_events


def test_a_catalogue_without_events_is_cold():
    profile = profile_items(catalogue(title=["x", "y"]), np.zeros(2, dtype=np.int64))
    assert profile.items_by_segment == {"head": 0, "mid": 0, "tail": 0, "cold": 2}
    assert profile.popularity == []
    assert profile.events_by_category == {NO_CATEGORY: 0}


# What may be published


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({"a": 10, "b": 0}, {"a": 10, "b": 0}),
        ({"a": 4, "b": 30, "c": 20}, {"a": None, "b": 30, "c": None}),
        ({"a": 4, "b": 20, "c": 20}, {"a": None, "b": None, "c": None}),
        ({"a": 6, "b": 7, "c": 20}, {"a": None, "b": None, "c": 20}),
        ({"a": 1, "b": 1, "c": 20}, {"a": None, "b": None, "c": None}),
        ({"a": 9, "b": 9, "c": 20}, {"a": None, "b": None, "c": None}),
        ({"a": 4, "b": 0}, {"a": None, "b": None}),
    ],
)
def test_small_counts_are_hidden_and_others_where_the_total_would_tell_them(counts, shown):
    assert suppress(counts, 10) == shown


def all_counts(cells: int, largest: int) -> list[dict[str, int]]:
    rows = itertools.product(range(largest + 1), repeat=cells)
    return [dict(zip("abcd", row, strict=False)) for row in rows]


@pytest.mark.parametrize("k", [3, 4, 5])
@pytest.mark.parametrize(("cells", "largest"), [(1, 12), (2, 12), (3, 9), (4, 6)])
def test_who_knows_the_rule_and_the_total_cannot_work_out_a_hidden_count(k, cells, largest):
    """Every breakdown there is, by what its reader sees: none of its hidden cells is certain."""
    seen: dict[tuple, list[dict[str, int]]] = defaultdict(list)
    for counts in all_counts(cells, largest):
        shown, total = suppress(counts, k), sum(counts.values())
        assert not any(shown[name] is not None and 0 < shown[name] < k for name in shown)
        assert all(shown[name] in (None, counts[name]) for name in shown)
        seen[(*shown.values(), suppress({"total": total}, k)["total"])].append(counts)
    for shown, candidates in seen.items():
        if candidates in ([dict.fromkeys("abcd"[:cells], size)] for size in (1, k - 1)):
            continue  # The total tells that all cells are so; nothing is left to hide.
        for name in candidates[0]:
            values = {counts[name] for counts in candidates}
            assert len(values) > 1 or suppress(candidates[0], k)[name] is not None, shown


users_with_counts = st.lists(st.integers(1, 40), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(lengths=users_with_counts, k=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_published_profile_has_no_number_below_k(lengths, k, seed):
    rng = np.random.default_rng(seed)
    users = [
        (f"u{n}", [(int(rng.integers(-1, 5)) * DAY, int(rng.integers(2))) for _ in range(length)])
        for n, length in enumerate(lengths)
    ]
    full = profile_of(users)
    shown = full.published(k)
    assert Profile.model_validate_json(shown.model_dump_json()) == shown
    breakdowns = [shown.events_by_day, shown.events_by_type, shown.users_by_length]
    found = [*itertools.chain(*(b.values() for b in breakdowns)), shown.num_users, shown.num_events]
    assert all(count is None or count == 0 or count >= k for count in found)
    assert full.num_users is not None
    assert shown.num_users == (full.num_users if full.num_users >= k else None)


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=30), k=st.integers(1, 12))
def test_a_published_catalogue_tells_no_item_with_fewer_than_k_events(counts, k):
    items = catalogue(title=["x"] * len(counts), category=[f"c{n % 7}" for n in range(len(counts))])
    full = profile_items(items, np.array(counts))
    shown = full.published(k)
    assert ItemProfile.model_validate_json(shown.model_dump_json()) == shown
    found = [*shown.events_by_segment.values(), *shown.events_by_category.values()]
    found += [point.events for point in shown.popularity]
    assert all(count is None or count == 0 or count >= k for count in found)
    for point in shown.popularity:
        rest = sum(counts) - round(point.share * sum(counts))
        assert rest == 0 or rest >= k


def test_what_k_of_one_publishes_is_everything():
    counts = np.array([5, 1, 0, 2])
    full = profile_items(catalogue(title=["x"] * 4), counts)
    assert full.published(1) == full
    assert Counter(full.items_by_segment.keys()) == Counter(SEGMENTS)


def test_published_profiles_are_not_merged():
    shown = profile_of([("a", [(0, 0)])]).published(10)
    with pytest.raises(AssertionError, match="merged before they are published"):
        merge_profiles([shown, shown])

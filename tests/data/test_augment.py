"""Altered windows: what each way may change, what it must leave, and where its luck comes from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.config import AugmentConfig
from recsys.data.augment import Augmenter, crop, mask, reorder, substitute
from recsys.schema import History

NUM_ITEMS, NUM_NEIGHBOURS = 40, 3
NEIGHBOURS = (np.arange(NUM_ITEMS)[:, None] + [1, 2, 3]) % NUM_ITEMS

lengths = st.integers(2, 12)
seeds = st.integers(0, 10_000)
examples = settings(deadline=None, max_examples=200)


def window(length: int, first: int = 0) -> History:
    """Distinct items; times and events tell which item they belong to."""
    items = first + np.arange(length, dtype=np.int32)
    return History(items, 1_000 + items.astype(np.int64) * 10, (items % 3).astype(np.int8))


def rows(history: History) -> list[tuple[int, int, int]]:
    columns = (history.item_indexes, history.timestamps, history.events)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def alter(name: str, whole: History, seed: int) -> History:
    random = np.random.default_rng(seed)
    ways = {"crop": crop, "mask": mask, "reorder": reorder}
    return ways[name](whole, random) if name in ways else substitute(whole, random, NEIGHBOURS)


every_way = pytest.mark.parametrize("name", ["crop", "mask", "reorder", "substitute"])


@every_way
@examples
@given(length=lengths, seed=seeds)
def test_two_events_or_more_stay_and_the_newest_is_never_altered(name, length, seed):
    whole = window(length)
    altered = alter(name, whole, seed)
    assert 2 <= len(altered) <= length
    assert rows(altered)[-1] == rows(whole)[-1]
    assert len(altered.item_indexes) == len(altered.timestamps) == len(altered.events)
    assert (np.diff(altered.timestamps) >= 0).all()


@every_way
@pytest.mark.parametrize("length", [2, 3, 5, 12])
def test_the_window_handed_in_is_left_as_it_is(name, length):
    whole = window(length)
    for seed in range(20):
        alter(name, whole, seed)
    assert rows(whole) == rows(window(length))


@every_way
def test_something_changes_wherever_it_can(name):
    for length in range(3, 9):
        altered = [rows(alter(name, window(length), seed)) for seed in range(20)]
        changed = [found != rows(window(length)) for found in altered]
        assert any(changed) if name == "reorder" else all(changed)


@examples
@given(length=lengths, seed=seeds)
def test_crop_is_the_contiguous_newest_part(length, seed):
    whole = window(length)
    altered = crop(whole, np.random.default_rng(seed))
    assert rows(altered) == rows(whole)[-len(altered) :]


@examples
@given(length=lengths, seed=seeds)
def test_mask_keeps_the_order_and_drops_whole_events(length, seed):
    whole = window(length)
    altered = rows(mask(whole, np.random.default_rng(seed)))
    assert altered == [row for row in rows(whole) if row in set(altered)]
    assert len(altered) < length or length == 2


def test_mask_can_drop_any_event_but_the_newest():
    kept = [mask(window(5), np.random.default_rng(seed)).item_indexes for seed in range(200)]
    for item in range(4):
        assert {item in found for found in kept} == {True, False}


@examples
@given(length=lengths, seed=seeds)
def test_reorder_permutes_a_contiguous_span_of_items_with_their_events(length, seed):
    whole = window(length)
    altered = reorder(whole, np.random.default_rng(seed))
    assert altered.timestamps.tolist() == whole.timestamps.tolist()
    pairs = list(zip(altered.item_indexes.tolist(), altered.events.tolist(), strict=True))
    before = [(item, event) for item, _, event in rows(whole)]
    moved = [place for place in range(length) if pairs[place] != before[place]]
    span = slice(moved[0], moved[-1] + 1) if moved else slice(0)
    assert sorted(pairs[span]) == sorted(before[span])


def test_reorder_leaves_what_is_outside_a_span():
    """Of 9 events some stay in place on both sides of a span in the middle."""
    found = [reorder(window(9), np.random.default_rng(seed)).item_indexes for seed in range(200)]
    moved = [np.flatnonzero(items != np.arange(9)) for items in found]
    assert any(len(places) and places[0] > 0 and places[-1] < 7 for places in moved)
    assert any(len(places) and places[0] == 0 for places in moved)
    assert any(len(places) and places[-1] == 7 for places in moved)


@examples
@given(length=lengths, seed=seeds)
def test_substitute_changes_items_to_listed_neighbours_and_nothing_else(length, seed):
    whole = window(length)
    altered = substitute(whole, np.random.default_rng(seed), NEIGHBOURS)
    assert altered.timestamps.tolist() == whole.timestamps.tolist()
    assert altered.events.tolist() == whole.events.tolist()
    assert len(altered) == length
    assert altered.item_indexes.dtype == whole.item_indexes.dtype
    for before, after in zip(whole.item_indexes, altered.item_indexes, strict=True):
        assert after == before or after in NEIGHBOURS[before]


def test_substitute_uses_every_neighbour_and_can_reach_every_older_event():
    found = [
        substitute(window(4), np.random.default_rng(seed), NEIGHBOURS).item_indexes
        for seed in range(300)
    ]
    for place in range(3):
        assert {int(items[place]) for items in found} == {place, *NEIGHBOURS[place].tolist()}


def augmenter(seed: int = 0, **shares: float) -> Augmenter:
    return Augmenter(AugmentConfig(**shares), seed, NEIGHBOURS)  # type: ignore[arg-type]


def all_rows(windows: list[History]) -> list[list[tuple[int, int, int]]]:
    return [rows(one) for one in windows]


SOME = [window(length, first) for first, length in enumerate([2, 3, 4, 5, 6, 9, 5, 4, 3, 2])]


def test_without_shares_windows_stay_the_very_same():
    found = augmenter().of(SOME, 3, range(len(SOME)))
    assert all(after is before for after, before in zip(found, SOME, strict=True))


def test_only_sparse_windows_are_altered():
    found = augmenter(crop=1.0, max_length=4).of(SOME, 3, range(len(SOME)))
    changed = [rows(a) != rows(b) for a, b in zip(found, SOME, strict=True)]
    assert changed == [2 < len(one) <= 4 for one in SOME]


@pytest.mark.parametrize("name", ["crop", "mask", "reorder", "substitute"])
def test_the_share_of_altered_windows_is_the_one_asked_for(name):
    """2,000 windows: the standard error of the share 0.3 is 0.01."""
    many = [window(5)] * 2_000
    found = augmenter(**{name: 0.3}).of(many, 0, range(2_000))
    altered = np.mean([after is not many[0] for after in found])
    assert altered == pytest.approx(0.3, abs=0.05)


def test_a_window_is_altered_in_one_way_and_ways_share_the_windows():
    """Lengths and times tell the ways apart where items are distinct."""
    many = [window(5)] * 2_000
    quarter = {"crop": 0.25, "mask": 0.25, "reorder": 0.25, "substitute": 0.25}
    found = augmenter(**quarter).of(many, 0, range(2_000))
    shorter = sum(len(one) < 5 for one in found)
    substituted = sum(set(one.item_indexes.tolist()) - set(range(5)) != set() for one in found)
    both = [one for one in found if len(one) < 5 and one.item_indexes.max() > 4]
    assert shorter / 2_000 == pytest.approx(0.5, abs=0.05)
    assert 0.1 < substituted / 2_000 < 0.25
    assert both == []


def test_luck_follows_from_seed_step_and_place_alone():
    shares = {"crop": 0.3, "mask": 0.3, "substitute": 0.3}
    many = [window(5, first) for first in range(30)]
    whole = all_rows(augmenter(**shares).of(many, 7, range(30)))
    by_ranks: list = [None] * 30
    for rank in range(3):
        share = augmenter(**shares).of(many[rank::3], 7, range(rank, 30, 3))
        by_ranks[rank::3] = all_rows(share)
    assert by_ranks == whole
    assert all_rows(augmenter(**shares).of(many, 8, range(30))) != whole
    assert all_rows(augmenter(seed=1, **shares).of(many, 7, range(30))) != whole
    assert all_rows(augmenter(**shares).of(many, 7, range(1, 31))) != whole


def test_shares_above_one_together_are_refused():
    with pytest.raises(ValidationError, match="their sum must be 1 or less"):
        AugmentConfig(crop=0.6, mask=0.5)

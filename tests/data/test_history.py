"""Histories: sorted, each event once, nothing lost, whatever the order of the rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data import history
from recsys.data.history import argsort_by, busiest_days, sort_events
from recsys.schema import SECONDS_A_DAY
from tests.data.made_events import (
    COLUMNS,
    USERS,
    by_user,
    event,
    events_of,
    of_lengths,
    sequences_of,
)

random_rows = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(USERS),
            "order": st.integers(0, 1),
            "timestamp": st.integers(-1, 3),
            "item_index": st.integers(0, 2),
            "event_index": st.integers(0, 1),
            "split_index": st.integers(0, 2),
            "value": st.sampled_from([0.0, 1.0]),
        }
    ),
    max_size=25,
)


def test_events_are_sorted_by_user_and_time():
    rows = [event("v", 1, 5), event("u", 2, 9), event("v", 3, 2), event("u", 4, 1)]
    sequences = sequences_of(rows)
    assert by_user(sequences, sequences.item_indexes) == {"u": [4, 2], "v": [3, 1]}
    assert by_user(sequences, sequences.timestamps) == {"u": [1, 9], "v": [2, 5]}
    assert sequences.offsets.tolist() == [0, 2, 4]


def test_order_comes_before_time():
    rows = [event("u", 1, 5, order=2), event("u", 2, 9, order=1), event("u", 3, 1, order=3)]
    assert sequences_of(rows).item_indexes.tolist() == [2, 1, 3]


def test_only_exact_duplicates_are_dropped():
    row = event("u", 1, 5)
    different = [{"value": 2.0}, {"event_index": 1}, {"item_index": 2}, {"timestamp": 6}]
    rows = [row, row, *(row | change for change in [*different, {"order": 1}, {"user_id": "v"}])]
    events = events_of([*rows, row])
    assert sorted(events["copies"].to_pylist()) == [1, 1, 1, 1, 1, 1, 3]
    sequences = sequences_of([*rows, row])
    assert sequences.num_events == 7
    assert by_user(sequences, sequences.item_indexes)["v"] == [1]


def test_copies_add_up_when_sorted_events_are_sorted_again_with_new_ones():
    row, other = event("u", 1, 5), event("v", 2, 6)
    fresh = pa.Table.from_pylist([row, other], pa.schema(COLUMNS))
    fresh = fresh.append_column("copies", pa.array([1, 1], pa.int32()))
    together = sort_events(pa.concat_tables([events_of([row, row, other]), fresh]))
    copies = dict(zip(together["user_id"].to_pylist(), together["copies"].to_pylist(), strict=True))
    assert copies == {"u": 3, "v": 2}


def test_equal_events_of_users_with_one_hash_are_no_duplicates(monkeypatch):
    monkeypatch.setattr(history, "_hashes", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    events = events_of([event("u", 1, 5), event("v", 1, 5), event("u", 1, 5)])
    copies = dict(zip(events["user_id"].to_pylist(), events["copies"].to_pylist(), strict=True))
    assert copies == {"u": 2, "v": 1}


def test_users_with_one_hash_are_still_two(monkeypatch):
    rows = [event(user, n, n) for n, user in enumerate("uvuvwuw")]
    monkeypatch.setattr(history, "_hashes", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    sequences = sequences_of(rows)
    assert by_user(sequences, sequences.item_indexes) == {"u": [0, 2, 5], "v": [1, 3], "w": [4, 6]}


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.integers(0, 3),
            st.sampled_from([-(2**40), 0, 2**40]),
        ),
        max_size=40,
    )
)
def test_packed_keys_sort_as_tuples_do(rows):
    keys = [np.array([row[n] for row in rows], dtype=np.int64) for n in range(3)]
    for chosen in (keys, keys[1:], keys[::-1]):
        found = [tuple(int(key[place]) for key in chosen) for place in argsort_by(chosen)]
        assert found == sorted(zip(*(key.tolist() for key in chosen), strict=True))


def test_a_pause_ends_a_session():
    times = [0, 10, 10 + 61, 200]
    sequences = sequences_of(
        [event("u", n, t) for n, t in enumerate(times)] + [event("v", 9, 5)], 60
    )
    assert sequences.user_ids.tolist() == ["u", "u", "u", "v"]
    assert sequences.offsets.tolist() == [0, 2, 3, 4, 5]


def test_the_busiest_day_of_a_user_is_counted_in_utc():
    day = SECONDS_A_DAY
    rows = [event("u", n, day - 2 + n) for n in range(5)] + [event("v", 1, 3), event("w", 1, -1)]
    events = events_of(rows)
    busiest = dict(zip(events["user_id"].to_pylist(), busiest_days(events).tolist(), strict=True))
    assert busiest == {"u": 3, "v": 1, "w": 0}


@settings(deadline=None, max_examples=100)
@given(rows=random_rows, seed=st.integers(0, 1000))
def test_events_are_the_sorted_distinct_rows_whatever_their_order(rows, seed):
    shuffled = [rows[n] for n in np.random.default_rng(seed).permutation(len(rows))]
    table = pa.Table.from_pylist(shuffled, pa.schema(COLUMNS))
    halves = pa.concat_tables([table.slice(0, len(rows) // 2), table.slice(len(rows) // 2)])
    found = sort_events(halves)
    counts = Counter(tuple(row[name] for name in COLUMNS) for row in rows)
    assert sum(found["copies"].to_pylist()) == len(rows)
    assert found.equals(sort_events(table))
    sorted_rows = [tuple(row[name] for name in [*COLUMNS, "copies"]) for row in found.to_pylist()]
    assert sorted(sorted_rows) == sorted((*row, n) for row, n in counts.items())
    for user in USERS:
        own = [row[1:-1] for row in sorted_rows if row[0] == user]
        assert own == sorted(own)


def test_positions_users_and_lengths_describe_the_offsets():
    sequences = of_lengths([2, 1, 3])
    assert sequences.lengths.tolist() == [2, 1, 3]
    assert sequences.positions().tolist() == [0, 1, 0, 0, 1, 2]
    assert sequences.users().tolist() == [0, 0, 1, 2, 2, 2]


def test_a_selection_keeps_users_without_events():
    chosen = of_lengths([2, 1, 3]).select(np.array([True, False, False, False, True, True]))
    assert by_user(chosen, chosen.item_indexes) == {"u000": [0], "u001": [], "u002": [4, 5]}

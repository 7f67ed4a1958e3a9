"""Splits: every train event predicted once, nothing of what is held out in training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import SplitConfig
from recsys.data.history import sort_events, to_sequences
from recsys.data.split import (
    SECONDS_A_DAY,
    TEST,
    TRAIN,
    VALID,
    SplitPlan,
    TimeCounts,
    assign_split,
    held_out_rows,
    plan_split,
    train_windows,
)
from tests.data.made_events import USERS, by_user, event, of_lengths, rows_of, sequences_of

TIME = SplitPlan("time", valid_from=10, test_from=20)
LEAVE = SplitPlan("leave_last_out")
COLUMN = SplitPlan("column")


def held_out(rows: list[dict], part: int, plan: SplitPlan, max_history: int = 50) -> list[tuple]:
    """(user, history items, targets) of a held-out part."""
    sequences = sequences_of(rows)
    split = assign_split(sequences, plan)
    table = held_out_rows(sequences, split, part, plan, max_history)
    return rows_of(table, "item_indexes", "targets")


def test_a_user_with_a_million_events_is_cut_into_windows_like_any_other():
    size = 1_000_000
    columns = {
        "user_id": pa.array(["hot"] * size, pa.large_string()),
        "item_index": np.zeros(size, np.int32),
        "timestamp": np.arange(size)[::-1].copy(),
        "event_index": np.zeros(size, np.int8),
    }
    sequences = to_sequences(sort_events(pa.table(columns)))
    assert sequences.timestamps.tolist() == list(range(size))
    windows = train_windows(sequences, assign_split(sequences, LEAVE), 50)
    assert len(windows) == -(-(size - 3) // 50)
    assert held_out_rows(sequences, assign_split(sequences, LEAVE), TEST, LEAVE, 50)[
        "timestamps"
    ].to_pylist() == [list(range(size - 51, size - 1))]


def test_leave_last_out_holds_out_two_events_of_users_with_three():
    sequences = of_lengths([1, 2, 3, 5])
    split = by_user(sequences, assign_split(sequences, LEAVE))
    assert split == {
        "u000": [TRAIN],
        "u001": [TRAIN, TRAIN],
        "u002": [TRAIN, VALID, TEST],
        "u003": [TRAIN, TRAIN, TRAIN, VALID, TEST],
    }


def test_a_time_split_cuts_at_the_cuts():
    times = [9, 10, 19, 20, 21]
    sequences = sequences_of([event("u", n, time) for n, time in enumerate(times)])
    assert assign_split(sequences, TIME).tolist() == [TRAIN, VALID, VALID, TEST, TEST]


def test_a_column_split_is_what_the_data_says():
    rows = [event("u", n, n, split_index=part) for n, part in enumerate([2, 0, 1, 0])]
    assert assign_split(sequences_of(rows), COLUMN).tolist() == [TEST, TRAIN, VALID, TRAIN]


def times(*seconds: int) -> TimeCounts:
    return TimeCounts.of(np.array(seconds, dtype=np.int64))


def test_the_cuts_of_a_time_split_are_whole_windows_back_from_the_newest_event():
    last = 100 * SECONDS_A_DAY
    plan = plan_split(SplitConfig(strategy="time", test_days=2, valid_days=0.5), times(3, last))
    assert plan.test_from == last + 1 - 2 * 86_400
    assert plan.valid_from == plan.test_from - 43_200


def test_a_ratio_split_cuts_the_events_in_the_order_of_time():
    plan = plan_split(SplitConfig(strategy="ratio", ratio=(0.7, 0.1, 0.2)), times(*range(10)))
    assert (plan.valid_from, plan.test_from) == (7, 8)
    sequences = sequences_of([event("u", n, n) for n in range(10)])
    assert Counter(assign_split(sequences, plan).tolist()) == {TRAIN: 7, VALID: 1, TEST: 2}
    assert held_out([event("u", n, n) for n in range(10)], TEST, plan)[1][1:] == (
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [9],
    )


@settings(deadline=None, max_examples=100)
@given(
    seconds=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    parts=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]),
)
def test_a_quantile_has_its_share_before_it_and_not_a_time_less(seconds, parts, share):
    blocks = [times(*seconds[n::parts]) for n in range(parts) if seconds[n::parts]]
    total = TimeCounts.total(blocks)
    assert total.counts.sum() == len(seconds)
    cut = total.quantile(share)
    enough = share * len(seconds) * (1 - 1e-9)
    assert sum(s < cut for s in seconds) >= enough
    earlier = [s for s in seconds if s < cut]
    assert not earlier or sum(s < max(earlier) for s in seconds) < enough


@pytest.mark.parametrize("strategy", ["time", "ratio"])
def test_a_split_by_time_without_timestamps_is_refused(strategy):
    with pytest.raises(
        ValueError, match=rf"prepare\.split\.strategy '{strategy}' needs timestamps"
    ):
        plan_split(SplitConfig(strategy=strategy), TimeCounts.total([]))


@pytest.mark.parametrize("strategy", ["leave_last_out", "column"])
def test_other_splits_need_no_timestamps(strategy):
    assert plan_split(SplitConfig(strategy=strategy)) == SplitPlan(strategy)


@settings(deadline=None, max_examples=80)
@given(
    moments=st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 30)), max_size=40),
    strategy=st.sampled_from(["time", "ratio"]),
)
def test_no_training_event_is_later_than_a_held_out_one(moments, strategy):
    rows = [event(user, n, time) for n, (user, time) in enumerate(moments)]
    if not rows:
        return
    config = SplitConfig(strategy=strategy, test_days=5 / 86_400, valid_days=5 / 86_400)
    plan = plan_split(config, times(*(time for _, time in moments)))
    sequences = sequences_of(rows)
    split = assign_split(sequences, plan)
    by_part = [sequences.timestamps[split == part] for part in (TRAIN, VALID, TEST)]
    for before, after in zip(by_part, by_part[1:], strict=False):
        assert not len(before) or not len(after) or before.max() < after.min()
    windows = train_windows(sequences, split, 4)
    trained = [t for row in windows["timestamps"].to_pylist() for t in row]
    assert not trained or max(trained) < plan.valid_from


def test_leave_last_out_rows_are_a_history_and_the_item_after_it():
    rows = [event("u", item, time) for time, item in enumerate([7, 8, 9, 8])]
    rows += [event("v", 1, 0), event("v", 2, 1)]
    assert held_out(rows, VALID, LEAVE) == [("u", [7, 8], [9])]
    assert held_out(rows, TEST, LEAVE) == [("u", [7, 8, 9], [8])]
    assert held_out(rows, TEST, LEAVE, max_history=2) == [("u", [8, 9], [8])]


TIMED = [
    *(event("u", i, t) for i, t in [(1, 1), (2, 5), (3, 10), (3, 15), (4, 20), (2, 25), (4, 26)]),
    event("v", 5, 21),
    event("w", 6, 2),
]


def test_time_rows_hold_the_distinct_items_of_the_window():
    assert held_out(TIMED, VALID, TIME) == [("u", [1, 2], [3])]
    assert held_out(TIMED, TEST, TIME) == [("u", [1, 2, 3, 3], [2, 4]), ("v", [], [5])]
    assert held_out(TIMED, TEST, TIME, max_history=3)[0] == ("u", [2, 3, 3], [2, 4])


def test_time_windows_train_on_what_was_before_the_cut():
    sequences = sequences_of(TIMED)
    table = train_windows(sequences, assign_split(sequences, TIME), 50)
    assert rows_of(table, "item_indexes") == [("u", [1, 2])]


def test_column_rows_are_one_for_each_held_out_event():
    parts = [TRAIN, VALID, TRAIN, TEST, TEST]
    rows = [event("u", 10 + n, n, split_index=part) for n, part in enumerate(parts)]
    rows.append(event("v", 1, 3, split_index=TEST))
    assert held_out(rows, VALID, COLUMN) == [("u", [10], [11])]
    tests = [("u", [10, 11, 12], [13]), ("u", [10, 11, 12, 13], [14]), ("v", [], [1])]
    assert held_out(rows, TEST, COLUMN) == tests


def test_a_time_history_ends_before_the_cut_even_where_order_contradicts_time():
    rows = [event("u", 1, 30, order=1), event("u", 2, 12, order=2), event("u", 3, 1, order=3)]
    ((_, history, targets),) = held_out(rows, VALID, TIME)
    assert targets == [2]
    assert 1 not in history


def test_the_newest_window_alone_may_stand_for_a_long_history():
    sequences = of_lengths([6, 1, 3])
    table = train_windows(sequences, np.zeros(10, dtype=int), 2, newest_only=True)
    wanted = [("u000", [3, 4, 5]), ("u002", [7, 8, 9])]
    assert rows_of(table, "item_indexes") == wanted


def test_windows_are_cut_so_that_each_begins_with_the_last_target():
    sequences = of_lengths([6, 1, 3])
    table = train_windows(sequences, np.zeros(10, dtype=int), 2)
    wanted = [("u000", [0, 1, 2]), ("u000", [2, 3, 4]), ("u000", [4, 5]), ("u002", [7, 8, 9])]
    assert rows_of(table, "item_indexes") == wanted
    assert rows_of(table, "timestamps") == wanted


@settings(deadline=None, max_examples=80)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    max_history=st.integers(1, 6),
    plan=st.sampled_from([LEAVE, SplitPlan("time", 20, 30), SplitPlan("time", 10**9, 10**9)]),
)
def test_every_train_event_but_the_first_is_predicted_once(lengths, max_history, plan):
    sequences = of_lengths(lengths)
    split = assign_split(sequences, plan)
    train = sequences.select(split == TRAIN)
    trained = by_user(train, train.item_indexes)
    predicted = Counter()
    for user, items, times, events in rows_of(
        train_windows(sequences, split, max_history), "item_indexes", "timestamps", "events"
    ):
        assert 2 <= len(items) <= max_history + 1
        start = trained[user].index(items[0])
        assert items == trained[user][start : start + len(items)]
        assert times == items
        assert events == [0] * len(items)
        predicted.update(items[1:])
    assert predicted == Counter(item for items in trained.values() for item in items[1:])


@settings(deadline=None, max_examples=80)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    parts=st.lists(st.integers(0, 2), min_size=54, max_size=54),
    max_history=st.integers(1, 6),
    plan=st.sampled_from([LEAVE, COLUMN]),
)
def test_a_history_is_what_came_right_before_the_target(lengths, parts, max_history, plan):
    sequences = of_lengths(lengths)
    if plan is COLUMN:
        sequences.split[:] = parts[: sequences.num_events]
    split = assign_split(sequences, plan)
    first = dict(zip(sequences.user_ids.tolist(), sequences.offsets.tolist(), strict=False))
    for part in (VALID, TEST):
        table = held_out_rows(sequences, split, part, plan, max_history)
        rows = rows_of(table, "item_indexes", "timestamps", "events", "targets")
        assert [target for *_, (target,) in rows] == np.flatnonzero(split == part).tolist()
        for user, items, times, events, (target,) in rows:
            start = max(first[user], target - max_history)
            assert items == times == list(range(start, target))
            assert events == [0] * len(items)


@settings(deadline=None, max_examples=80)
@given(
    moments=st.lists(
        st.tuples(st.sampled_from(USERS), st.integers(0, 30), st.integers(0, 5)), max_size=30
    ),
    max_history=st.integers(1, 6),
)
def test_time_rows_are_what_a_loop_over_users_finds(moments, max_history):
    rows = [event(user, item, time) for user, time, item in moments]
    windows = {VALID: (10, 20), TEST: (20, 31)}
    for part, (start, end) in windows.items():
        wanted = []
        for user in sorted(set(USERS)):
            log = sorted({(time, item) for who, time, item in moments if who == user})
            targets = sorted({item for time, item in log if start <= time < end})
            history = [item for time, item in log if time < start][-max_history:]
            wanted += [(user, history, targets)] if targets else []
        assert held_out(rows, part, TIME, max_history) == wanted


def test_events_and_times_stand_beside_their_items():
    kinds = [2, 0, 1, 1]
    sequences = sequences_of([event("u", 5 - n, n, event_index=k) for n, k in enumerate(kinds)])
    table = held_out_rows(sequences, assign_split(sequences, LEAVE), TEST, LEAVE, 2)
    row = table.to_pylist()[0]
    assert (row["item_indexes"], row["timestamps"], row["events"]) == ([4, 3], [1, 2], [0, 1])


@pytest.mark.parametrize("plan", [LEAVE, TIME, COLUMN], ids=lambda plan: plan.strategy)
@pytest.mark.parametrize("rows", [[], [event("u", 1, 1)]], ids=["none", "one"])
def test_too_few_events_make_tables_without_rows_of_the_usual_types(rows, plan):
    sequences = sequences_of(rows)
    split = assign_split(sequences, plan)
    windows = train_windows(sequences, split, 3)
    assert len(windows) == 0
    assert windows.schema == pa.schema(
        {
            "user_id": pa.large_string(),
            "item_indexes": pa.large_list(pa.int32()),
            "timestamps": pa.large_list(pa.int64()),
            "events": pa.large_list(pa.int8()),
        }
    )
    for part in (VALID, TEST):
        table = held_out_rows(sequences, split, part, plan, 3)
        targets = pa.field("targets", pa.large_list(pa.int32()))
        assert len(table) == 0
        assert table.schema == windows.schema.append(targets)

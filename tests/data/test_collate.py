"""Rows to padded batches: what is where, which events stay, and what is to be predicted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.collate import (
    collate_held_out,
    collate_histories,
    collate_windows,
    histories_of,
    targets_of,
)
from recsys.schema import NO_TARGET, UNKNOWN_TIME, Batch, History

SHAPES = [[], [1], [2, 3], [4, 5, 6, 7], [8], []]
NO = NO_TARGET

item_lists = st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=7), min_size=1, max_size=6)


def history(items: list[int]) -> History:
    """A history whose times and events tell which item they belong to."""
    indexes = np.array(items, dtype=np.int64)
    return History(indexes, indexes * 100, indexes % 3)


def table_of(lists: list[list[int]]) -> pa.Table:
    """Dataset rows of the types the prepare stage writes."""
    kinds = {"item_indexes": pa.int32(), "timestamps": pa.int64(), "events": pa.int8()}
    made = [history(items) for items in lists]
    columns = {
        name: pa.array([getattr(h, name).tolist() for h in made], pa.large_list(kind))
        for name, kind in kinds.items()
    }
    targets = pa.array([[i * 10 for i in items] for items in lists], pa.large_list(pa.int32()))
    return pa.table(
        {"user_id": [f"u{n}" for n in range(len(lists))], **columns, "targets": targets}
    )


def as_lists(histories: list[History]) -> list[tuple]:
    return [(h.item_indexes.tolist(), h.timestamps.tolist(), h.events.tolist()) for h in histories]


def assert_rows_are(table: pa.Table, lists: list[list[int]]) -> None:
    assert as_lists(histories_of(table)) == as_lists([history(items) for items in lists])
    assert [t.tolist() for t in targets_of(table)] == [[i * 10 for i in items] for items in lists]


def unpadded(values: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(values, lengths.tolist(), strict=True)]


def padding(values: torch.Tensor, lengths: torch.Tensor) -> set[int]:
    """Everything right of the rows' ends."""
    return {v for row, n in zip(values, lengths.tolist(), strict=True) for v in row[n:].tolist()}


def assert_padded(batch: Batch, items: list[list[int]]) -> None:
    """The batch holds these histories on the left and nothing but fill on the right."""
    lengths = batch.lengths
    assert lengths.tolist() == [len(row) for row in items]
    shape = (len(items), max(map(len, items)))
    wanted = [history(row) for row in items]
    for name, fill in {"item_indexes": 0, "timestamps": UNKNOWN_TIME, "events": 0}.items():
        values = getattr(batch, name)
        assert tuple(values.shape) == shape
        assert values.dtype == torch.int64
        assert unpadded(values, lengths) == [getattr(h, name).tolist() for h in wanted]
        assert padding(values, lengths) <= {fill}
    assert tuple(batch.targets.shape) == shape
    assert batch.targets.dtype == torch.int64
    assert padding(batch.targets, lengths) <= {NO_TARGET}


def test_rows_become_histories_and_targets():
    assert_rows_are(table_of(SHAPES), SHAPES)


@pytest.mark.parametrize("start", range(len(SHAPES) + 1))
@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_rows_of_a_slice_are_the_slice_of_the_rows(start, count):
    assert_rows_are(table_of(SHAPES).slice(start, count), SHAPES[start : start + count])


def test_rows_of_several_chunks_stay_in_order():
    table = table_of(SHAPES)
    chunks = pa.concat_tables([table.slice(3), table.slice(1, 2), table.slice(0, 1)])
    assert_rows_are(chunks, [*SHAPES[3:], *SHAPES[1:3], *SHAPES[:1]])
    assert_rows_are(chunks.slice(2, 3), [*SHAPES[5:], *SHAPES[1:3]])


def test_chosen_rows_are_those():
    assert_rows_are(table_of(SHAPES).take([3, 0, 3, 2]), [SHAPES[3], [], SHAPES[3], SHAPES[2]])


def test_a_table_without_rows_has_no_histories():
    assert histories_of(table_of([])) == []
    assert targets_of(table_of([])) == []


@settings(deadline=None, max_examples=50)
@given(lists=item_lists, cut=st.integers(0, 6))
def test_any_rows_round_trip_through_a_table(lists, cut):
    assert_rows_are(table_of(lists).slice(cut), lists[cut:])


def test_a_batch_is_padded_on_the_right():
    batch = collate_histories([history([5, 6, 7]), history([8])], 10)
    assert batch.item_indexes.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.timestamps.tolist() == [[500, 600, 700], [800, UNKNOWN_TIME, UNKNOWN_TIME]]
    assert batch.events.tolist() == [[2, 0, 1], [2, 0, 0]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.targets.tolist() == [[NO, NO, NO], [NO, NO, NO]]


def test_the_newest_events_stay():
    batch = collate_histories([history([1, 2, 3, 4]), history([5, 6])], 2)
    assert_padded(batch, [[3, 4], [5, 6]])


def test_a_batch_is_as_long_as_its_longest_history_not_as_the_limit():
    assert_padded(collate_histories([history([1, 2])], 50), [[1, 2]])


@settings(deadline=None, max_examples=50)
@given(lists=item_lists, max_history=st.integers(1, 8))
def test_any_histories_are_cut_and_padded(lists, max_history):
    batch = collate_histories([history(items) for items in lists], max_history)
    assert_padded(batch, [items[-max_history:] for items in lists])
    assert set(batch.targets.flatten().tolist()) == {NO_TARGET}


def test_each_event_of_a_window_is_to_predict_the_next_one():
    batch = collate_windows([history([1, 2, 3, 4]), history([5, 6])])
    assert_padded(batch, [[1, 2, 3], [5]])
    assert batch.targets.tolist() == [[2, 3, 4], [6, NO, NO]]


@settings(deadline=None, max_examples=50)
@given(lists=item_lists)
def test_any_windows_are_shifted_by_one(lists):
    windows = [[0, *items] for items in lists]
    batch = collate_windows([history(items) for items in windows])
    assert_padded(batch, [items[:-1] for items in windows])
    assert unpadded(batch.targets, batch.lengths) == [items[1:] for items in windows]


def test_only_the_last_event_of_a_held_out_history_has_a_target():
    batch = collate_held_out([history([1, 2, 3]), history([4]), history([5, 6])], [7, 8, 9], 2)
    assert_padded(batch, [[2, 3], [4], [5, 6]])
    assert batch.targets.tolist() == [[NO, 7], [8, NO], [NO, 9]]


def test_a_target_for_each_history_is_needed():
    with pytest.raises(ValueError, match="zip"):
        collate_held_out([history([1]), history([2])], [3], 5)


@pytest.mark.parametrize("empty", [[[]], [[1, 2], []]])
def test_an_empty_history_is_refused(empty):
    with pytest.raises(AssertionError):
        collate_histories([history(items) for items in empty], 5)


def test_rows_of_a_table_become_the_same_batch_as_their_histories():
    table = table_of(SHAPES).slice(1, 4)
    assert_padded(collate_histories(histories_of(table), 3), [[1], [2, 3], [5, 6, 7], [8]])


def assert_equal(one: Batch, other: Batch) -> None:
    for name in ("item_indexes", "timestamps", "events", "lengths", "targets"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@settings(deadline=None, max_examples=50)
@given(lists=item_lists, start=st.integers(0, 5), count=st.integers(1, 6), size=st.integers(1, 8))
def test_a_slice_of_a_table_is_padded_as_its_histories_are(lists, start, count, size):
    table = table_of([[0, *items] for items in lists])
    part = table.slice(start % len(lists), count)
    for rows in (part, pa.concat_tables([part, table.slice(0, 1)])):
        assert_equal(collate_windows(rows), collate_windows(histories_of(rows)))
        assert_equal(collate_histories(rows, size), collate_histories(histories_of(rows), size))


def test_weights_are_those_of_the_targets_events_and_1_in_the_padding():
    weights = np.array([0.0, 0.5, 5.0], dtype=np.float32)
    table = table_of([[3, 4, 5], [6, 8]])  # events 0, 1, 2 and 0, 2
    batch = collate_windows(table, weights)
    assert batch.weights is not None
    assert batch.weights.dtype == torch.float32
    assert batch.weights.tolist() == [[0.5, 5.0], [5.0, 1.0]]
    assert collate_windows(table).weights is None


def test_the_rows_of_a_table_are_not_changed_by_a_batch():
    table = table_of(SHAPES).slice(1, 4)
    before = table.to_pylist()
    batch = collate_windows([h for h in histories_of(table) if len(h) > 1])
    batch.item_indexes.fill_(-1)
    batch.targets.fill_(-1)
    assert table.to_pylist() == before

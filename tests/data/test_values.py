"""Values on their way from events to batches; without them nothing is different."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.artifact import parquet_bytes
from recsys.data.augment import mask, reorder, substitute
from recsys.data.collate import (
    collate_held_out,
    collate_histories,
    collate_windows,
    histories_of,
    target_values_of,
)
from recsys.data.eval_rows import read_eval_rows
from recsys.data.history import NO_VALUE, Sequences, to_sequences
from recsys.data.split import (
    TEST,
    SplitPlan,
    assign_split,
    held_out_rows,
    train_windows,
)
from recsys.data.vocabulary import ItemVocabulary
from recsys.schema import History
from tests.data.made_events import event, events_of

NAN = float("nan")
LAST_OUT = SplitPlan("leave_last_out")
ROWS = [event("u", item, item, value=item / 2) for item in range(1, 8)]
ROWS[2]["value"] = float(NO_VALUE)


def sequences(keep_values: bool, rows: list[dict] = ROWS) -> Sequences:
    return to_sequences(events_of(rows), keep_values=keep_values)


def same(found: list, expected: list) -> bool:
    return np.array_equal(np.array(found, float), np.array(expected, float), equal_nan=True)


def valued(items: list[int]) -> History:
    return replace(History.of_items(items), values=np.array(items, np.float32) * 10)


def test_train_windows_carry_the_values_beside_the_items() -> None:
    found = sequences(keep_values=True)
    windows = train_windows(found, assign_split(found, LAST_OUT), max_history=3)
    assert windows["item_indexes"].to_pylist() == [[1, 2, 3, 4], [4, 5]]
    first, second = windows["values"].to_pylist()
    assert same(first, [0.5, 1.0, NAN, 2.0])
    assert same(second, [2.0, 2.5])
    assert windows.schema.field("values").type == pa.large_list(pa.float32())


def test_held_out_rows_carry_the_values_of_history_and_targets() -> None:
    found = sequences(keep_values=True)
    rows = held_out_rows(found, assign_split(found, LAST_OUT), TEST, LAST_OUT, max_history=2)
    assert rows["values"].to_pylist() == [[2.5, 3.0]]
    assert rows["targets"].to_pylist() == [[7]]
    assert rows["target_values"].to_pylist() == [[3.5]]


def test_the_targets_of_a_time_window_have_their_first_values() -> None:
    plan = SplitPlan("time", valid_from=3, test_from=3)
    times = {1: (1, 5), 4: (3, 9), 2: (4, 7), 5: (3, 8)}
    rows = [event("u", item, time, value=value) for time, (item, value) in times.items()]
    found = sequences(True, rows)
    held_out = held_out_rows(found, assign_split(found, plan), TEST, plan, max_history=5)
    assert held_out["targets"].to_pylist() == [[3]]
    assert held_out["target_values"].to_pylist() == [[9.0]]


def test_rows_that_do_not_keep_values_are_the_same_bytes_with_and_without_them() -> None:
    without = events_of(ROWS).drop_columns(["value"])
    for events, keep in ((events_of(ROWS), False), (without, True)):
        found, plain = to_sequences(events, keep_values=keep), to_sequences(without)
        split = assign_split(found, LAST_OUT)
        tables = [
            (train_windows(s, split, 3), held_out_rows(s, split, TEST, LAST_OUT, 3))
            for s in (found, plain)
        ]
        for table, expected in zip(*tables, strict=True):
            assert parquet_bytes(table) == parquet_bytes(expected)


def test_a_batch_of_windows_has_the_values_of_events_and_of_what_follows() -> None:
    found = sequences(keep_values=True)
    table = train_windows(found, assign_split(found, LAST_OUT), max_history=3)
    for windows in (table, histories_of(table)):
        batch = collate_windows(windows)
        assert same(batch.values.tolist(), [[0.5, 1, NAN], [2, NAN, NAN]])
        assert same(batch.target_values.tolist(), [[1, NAN, 2], [2.5, NAN, NAN]])


def test_a_held_out_batch_has_the_value_of_its_one_target() -> None:
    batch = collate_held_out([valued([1, 2, 3]), valued([4])], [5, 6], 2, [0.5, NAN])
    assert same(batch.values.tolist(), [[20, 30], [40, NAN]])
    assert same(batch.target_values.tolist(), [[NAN, 0.5], [NAN, NAN]])


def test_a_batch_has_no_values_where_a_history_has_none() -> None:
    batch = collate_histories([valued([1, 2]), History.of_items([3])], 5)
    assert batch.values is None
    assert batch.target_values is None


def test_values_stay_with_their_items_when_a_window_is_altered() -> None:
    window = valued([1, 2, 3, 4, 5])
    for alter in (mask, reorder):
        altered = alter(window, np.random.default_rng(0))
        assert (altered.values == altered.item_indexes * 10).all()
    neighbours = np.arange(6)[:, None] + 100
    altered = substitute(window, np.random.default_rng(0), neighbours)
    assert (np.isnan(altered.values) == (altered.item_indexes >= 100)).all()
    assert window.last(2).values.tolist() == [40.0, 50.0]


def eval_rows(folder: Path, **columns: list) -> str:
    told = {"user_id": ["u", "v"], "history_item_ids": [["a", "x", "b"], []], "item_id": ["b", "a"]}
    pq.write_table(pa.table(told | columns), folder / "eval_rows.parquet")
    return str(folder / "eval_rows.parquet")


VOCABULARY = ItemVocabulary(pa.array(["a", "b"]))


def test_evaluation_rows_of_the_data_carry_their_values(tmp_path: Path) -> None:
    uri = eval_rows(tmp_path, history_values=[[1.0, 2.0, None], []], value=[4.0, None])
    rows = read_eval_rows(uri, VOCABULARY, 5, keep_values=True)[0]["test"]
    assert same(rows["values"].to_pylist()[0], [1.0, NAN])
    values = target_values_of(rows)
    assert values is not None
    assert same([v.tolist() for v in values], [[4.0], [NAN]])


def test_evaluation_rows_without_values_keep_them_unknown(tmp_path: Path) -> None:
    uri = eval_rows(tmp_path)
    kept = read_eval_rows(uri, VOCABULARY, 5, keep_values=True)[0]["test"]
    assert same(kept["values"].to_pylist()[0], [NAN, NAN])
    assert target_values_of(read_eval_rows(uri, VOCABULARY, 5)[0]["test"]) is None


def test_evaluation_rows_with_a_value_too_few_are_refused(tmp_path: Path) -> None:
    uri = eval_rows(tmp_path, history_values=[[1.0], []])
    with pytest.raises(ValueError, match="history_values and history_item_ids differ in length"):
        read_eval_rows(uri, VOCABULARY, 5, keep_values=True)

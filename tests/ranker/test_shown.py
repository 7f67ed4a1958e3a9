"""A log of what was shown: what is used, what is left out and why, and the click model of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.ranker.shown import fit_clicks, read_shown

ITEMS = pa.table({"item_id": ["a", "b", "gone"], "removed": [False, False, True]})
COLUMNS = ("request_id", "query", "item_id", "position", "clicked")


def write(folder: Path, rows: list[tuple], columns: tuple[str, ...] = COLUMNS) -> str:
    path = folder / "shown.parquet"
    pq.write_table(
        pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))), path
    )
    return str(path)


def test_rows_become_requests_in_the_order_of_the_log(tmp_path):
    rows = [("r2", "hat", "b", 1, 1), ("r2", "hat", "a", 2, 0), ("r1", " Hat ", "a", 1, 0)]
    first, second = read_shown(write(tmp_path, rows), ITEMS).lists
    assert (first.query, second.query) == ("hat", "Hat")
    assert (first.items.tolist(), second.items.tolist()) == ([1, 0], [0])
    assert (first.places.tolist(), first.clicked.tolist()) == ([1, 2], [1, 0])


def test_a_history_is_that_of_the_first_row_and_may_be_missing(tmp_path):
    columns = (*COLUMNS, "history")
    rows = [("r", "hat", "b", 1, 1, ["b", None, "x"]), ("r", "hat", "a", 2, 0, None)]
    rows.append(("q", "hat", "a", 1, 0, None))
    first, second = read_shown(write(tmp_path, rows, columns), ITEMS).lists
    assert (first.history, second.history) == (("b", "x"), ())


def test_bad_rows_are_left_out_and_counted_and_all_add_up(tmp_path):
    rows = [
        ("r", "hat", "a", 1, 1),
        ("r", "hat", "a", 2, 1),
        ("r", "hat", "gone", 3, 0),
        ("r", "hat", "unknown", 3, 0),
        ("r", "hat", "b", 0, 0),
        ("q", "hat", "b", 1, 2),
        ("q", "hat", "b", None, 0),
        ("q", "  ", "b", 1, 0),
        (None, "hat", "b", 1, 0),
        ("p", "h" * 10_001, "b", 1, 0),
    ]
    log = read_shown(write(tmp_path, rows), ITEMS)
    assert log.rows == {
        "bad_clicked": 1,
        "bad_position": 2,
        "duplicate": 1,
        "empty_query": 1,
        "long_query": 1,
        "null_request_id": 1,
        "unknown_or_removed_item": 2,
        "used": 1,
    }
    assert [len(request.items) for request in log.lists] == [1]


def test_a_file_that_is_no_log_names_itself(tmp_path):
    with pytest.raises(ValueError, match=r"shown.parquet has no column position"):
        read_shown(write(tmp_path, [("r", "hat", "a", 1)], (*COLUMNS[:3], "clicked")), ITEMS)
    with pytest.raises(ValueError, match="another type"):
        read_shown(write(tmp_path, [("r", "hat", "a", "first", 1)]), ITEMS)
    with pytest.raises(
        ValueError, match=r"no row that can be used: \{'unknown_or_removed_item': 1"
    ):
        read_shown(write(tmp_path, [("r", "hat", "x", 1, 1)]), ITEMS)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="torn.parquet"):
        read_shown(str(tmp_path / "torn.parquet"), ITEMS)


def test_an_item_for_two_queries_is_two_pairs(tmp_path):
    rows = [
        *(("r1", "hat", "a", 1, 1), ("r1", "hat", "b", 2, 0)),
        *(("r2", "hat", "b", 1, 1), ("r2", "hat", "a", 2, 1)),
        *(("r3", "nail", "a", 1, 0), ("r3", "nail", "b", 2, 0)),
    ]
    model = fit_clicks(read_shown(write(tmp_path, rows), ITEMS).lists)
    assert len(model.attraction) == 4
    assert model.attraction[2] < model.attraction[0]
    assert 0 < model.examination[1] < 1

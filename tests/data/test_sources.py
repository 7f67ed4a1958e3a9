"""Raw tables on disk: which files are found, and how each fault of a file is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data import sources
from recsys.data.sources import (
    INTERACTION_COLUMNS,
    ITEM_COLUMNS,
    Source,
    find_source,
    read_piece,
)

INTERACTIONS = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [10, 20]}
ITEMS = {"item_id": ["a", "b"], "title": ["red hat", "blue hat"]}
WHOLE = pa.table({"item_id": [f"i{n}" for n in range(200)], "title": ["hat"] * 200})
STRUCT = pa.array([{"x": 1}, {"x": 2}])


def write(path: Path, columns: dict | pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
    return path


def interactions(folder: Path) -> Source:
    return find_source(str(folder), "interactions", INTERACTION_COLUMNS)


def items(folder: Path) -> Source:
    return find_source(str(folder), "items", ITEM_COLUMNS)


def footer_bytes(content: bytes) -> int:
    return int.from_bytes(content[-8:-4], "little")


def test_a_single_file_is_found_with_its_rows_and_columns(tmp_path):
    path = write(tmp_path / "interactions.parquet", INTERACTIONS)
    source = interactions(tmp_path)
    assert source.paths == [str(path)]
    assert source.columns == ["user_id", "item_id", "timestamp"]
    assert source.num_rows == 2
    assert [file.path for file in source.files] == ["interactions.parquet"]
    assert source.files[0].size == path.stat().st_size


def test_a_directory_of_files_is_one_table(tmp_path):
    names = ["b.parquet", "a.parquet", "day=1/c.parquet"]
    paths = [write(tmp_path / "interactions" / name, INTERACTIONS) for name in names]
    (tmp_path / "interactions" / "_SUCCESS").touch()
    (tmp_path / "interactions" / "notes.txt").write_text("not a table")
    source = interactions(tmp_path)
    assert source.paths == sorted(map(str, paths))
    assert source.num_rows == 6


def test_a_file_uri_is_a_place_too(tmp_path):
    write(tmp_path / "items.parquet", ITEMS)
    assert items(f"file://{tmp_path}").num_rows == 2


def test_columns_beside_the_known_ones_are_not_read(tmp_path):
    write(tmp_path / "one" / "items.parquet", ITEMS)
    write(tmp_path / "two" / "items.parquet", ITEMS | {"weight": [1, 2], "parts": STRUCT})
    assert items(tmp_path / "two").columns == ["item_id", "title"]


def test_columns_come_in_one_order_whatever_the_file_says(tmp_path):
    write(tmp_path / "items.parquet", dict(reversed((ITEMS | {"price": [1.0, 2.0]}).items())))
    assert items(tmp_path).columns == ["item_id", "title", "price"]


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": [1, 2]},
        {"item_id": pa.array([1, 2], pa.uint32())},
        {"item_id": pa.array(["a", "b"], pa.large_string())},
        {"timestamp": pa.array([1, 2], pa.timestamp("ms", tz="UTC"))},
        {"timestamp": pa.array([None, None], pa.null())},
        {"value": [1, 2]},
        {"value": pa.array([1.0, None], pa.float32())},
        {"event": ["view", None]},
        {"order": pa.array([1, 2], pa.int16())},
        {"split": ["train", "test"]},
    ],
)
def test_these_types_are_taken(tmp_path, changed):
    write(tmp_path / "interactions.parquet", INTERACTIONS | changed)
    assert interactions(tmp_path).num_rows == 2


@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_a_missing_column_is_named_with_the_file_and_what_it_has(tmp_path, name):
    columns = {n: values for n, values in INTERACTIONS.items() if n != name} | {"extra": [1, 2]}
    path = write(tmp_path / "interactions.parquet", columns)
    with pytest.raises(ValueError, match=f"column '{name}' is missing") as caught:
        interactions(tmp_path)
    assert str(path) in str(caught.value)
    assert f"it has: {', '.join(columns)}" in str(caught.value)


def test_items_need_a_title(tmp_path):
    write(tmp_path / "items.parquet", {"item_id": ["a"]})
    with pytest.raises(ValueError, match="column 'title' is missing; it has: item_id"):
        items(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "found", "allowed"),
    [
        ("user_id", [1.5, 2.5], "double", "string or integer"),
        ("item_id", [True, False], "bool", "string or integer"),
        ("timestamp", ["2024-01-01", "2024-01-02"], "string", "integer Unix seconds or a timest"),
        ("timestamp", [1.0, 2.0], "double", "integer Unix seconds or a timestamp"),
        ("event", [1, 2], "int64", "string"),
        ("value", ["5", "4"], "string", "a number"),
        ("order", [0.5, 1.5], "double", "integer"),
        ("split", [0, 1], "int64", "string"),
        ("item_id", [["a"], ["b"]], "list<", "string or integer"),
    ],
)
def test_a_wrong_type_is_named_with_what_is_allowed(tmp_path, name, values, found, allowed):
    path = write(tmp_path / "interactions.parquet", INTERACTIONS | {name: values})
    with pytest.raises(ValueError, match=f"column '{name}' is {found}") as caught:
        interactions(tmp_path)
    assert f"it must be {allowed}" in str(caught.value)
    assert str(path) in str(caught.value)


def damaged(fault: str, content: bytes) -> bytes:
    """A Parquet file's bytes with one fault."""
    start = len(content) - 8 - footer_bytes(content)
    return {
        "no bytes": b"",
        "first half only": content[: len(content) // 2],
        "one byte short": content[:-1],
        "three bytes": content[:3],
        "wrong magic": content[:-4] + b"NOPE",
        "text": b"item_id,title\n" * 40,
        "footer of zeros": content[:start] + bytes(footer_bytes(content)) + content[-8:],
        "footer of ones": content[:start] + b"\xff" * footer_bytes(content) + content[-8:],
        "footer longer than the file": content[:-8] + b"\xff\xff\xff\x7f" + content[-4:],
    }[fault]


@pytest.mark.parametrize(
    "fault",
    [
        "no bytes",
        "first half only",
        "one byte short",
        "three bytes",
        "wrong magic",
        "text",
        "footer of zeros",
        "footer of ones",
        "footer longer than the file",
    ],
)
def test_a_file_that_is_not_whole_parquet_is_named(tmp_path, fault):
    write(tmp_path / "items" / "good.parquet", WHOLE)
    bad = write(tmp_path / "items" / "bad.parquet", WHOLE)
    bad.write_bytes(damaged(fault, bad.read_bytes()))
    with pytest.raises(ValueError, match=r"bad\.parquet.* is empty, truncated or not Parquet"):
        items(tmp_path)


def test_a_table_without_rows_is_refused(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "items" / f"{name}.parquet", WHOLE.slice(0, 0))
    with pytest.raises(ValueError, match=r"table 'items' has no rows") as caught:
        items(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_file_without_rows_beside_one_with_rows_is_taken(tmp_path):
    write(tmp_path / "items" / "a.parquet", WHOLE.slice(0, 0))
    write(tmp_path / "items" / "b.parquet", WHOLE)
    assert items(tmp_path).num_rows == len(WHOLE)


@pytest.mark.parametrize("case", ["no directory", "no file", "only other files"])
def test_no_file_is_told_with_where_it_was_looked_for(tmp_path, case):
    place = tmp_path / "shop"
    if case != "no directory":
        write(place / "items.parquet", ITEMS)
    if case == "only other files":
        (place / "interactions").mkdir()
        (place / "interactions" / "a.csv").write_text("user_id,item_id")
    with pytest.raises(ValueError, match="has neither 'interactions.parquet' nor") as caught:
        interactions(place)
    assert str(place) in str(caught.value)


def test_files_of_different_types_are_named_both(tmp_path):
    first = write(tmp_path / "items" / "a.parquet", ITEMS)
    write(tmp_path / "items" / "b.parquet", ITEMS)
    odd = write(tmp_path / "items" / "c.parquet", ITEMS | {"item_id": [1, 2]})
    with pytest.raises(ValueError, match="give every file of a table one schema") as caught:
        items(tmp_path)
    message = str(caught.value)
    assert str(first) in message
    assert str(odd) in message
    assert "b.parquet" not in message
    assert "int64" in message
    assert "string" in message


def test_a_column_that_only_some_files_have_is_refused(tmp_path):
    write(tmp_path / "items" / "a.parquet", ITEMS)
    write(tmp_path / "items" / "b.parquet", ITEMS | {"brand": ["x", "y"]})
    with pytest.raises(ValueError, match=r"b\.parquet has columns .*brand"):
        items(tmp_path)


def test_files_may_differ_in_columns_that_are_not_read(tmp_path):
    write(tmp_path / "items" / "a.parquet", ITEMS | {"weight": [1, 2]})
    write(tmp_path / "items" / "b.parquet", ITEMS | {"weight": ["1", "2"]})
    assert items(tmp_path).num_rows == 4


def test_the_fingerprint_stays_while_the_files_stay(tmp_path):
    write(tmp_path / "items" / "a.parquet", ITEMS)
    first = items(tmp_path).fingerprint
    (tmp_path / "items" / "notes.txt").write_text("not a table")
    assert items(tmp_path).fingerprint == first


def test_the_fingerprint_changes_when_a_file_is_added_removed_or_rewritten(tmp_path):
    write(tmp_path / "items" / "a.parquet", ITEMS)
    seen = [items(tmp_path).fingerprint]
    write(tmp_path / "items" / "b.parquet", ITEMS)
    seen.append(items(tmp_path).fingerprint)
    write(tmp_path / "items" / "b.parquet", ITEMS | {"title": ["red hut", "blue hut"]})
    seen.append(items(tmp_path).fingerprint)
    (tmp_path / "items" / "a.parquet").unlink()
    seen.append(items(tmp_path).fingerprint)
    shutil.move(tmp_path / "items" / "b.parquet", tmp_path / "items" / "c.parquet")
    seen.append(items(tmp_path).fingerprint)
    assert len(set(seen)) == len(seen)


def test_files_that_are_done_are_not_opened(tmp_path):
    old = write(tmp_path / "interactions/date=1/a.parquet", INTERACTIONS)
    done = interactions(tmp_path).files
    old.write_bytes(b"x" * old.stat().st_size)
    os.utime(old, ns=(done[0].changed_ns, done[0].changed_ns))
    assert find_source(str(tmp_path), "interactions", INTERACTION_COLUMNS, done).num_rows == 0
    new = write(tmp_path / "interactions/date=2/a.parquet", INTERACTIONS)
    source = find_source(str(tmp_path), "interactions", INTERACTION_COLUMNS, done)
    assert source.paths == [str(new)]
    assert source.num_rows == 2
    assert [file.path for file in source.files] == [
        f"interactions/date={n}/a.parquet" for n in (1, 2)
    ]


@pytest.mark.parametrize(
    ("times", "units"),
    [
        ([10, 1_700_000_000], {"s"}),
        ([1_700_000_000_000, 1_700_000_000_001], {"ms"}),
        ([1_700_000_000, 1_700_000_000_001], {"s", "ms"}),
        ([1_700_000_000_000_000, 1_700_000_000_000_000_000], {"us", "ns"}),
        ([-5, None], set()),
    ],
)
def test_the_units_of_timestamps_are_told_from_footers(tmp_path, times, units):
    columns = INTERACTIONS | {"timestamp": pa.array(times, pa.int64())}
    write(tmp_path / "interactions.parquet", columns)
    assert set(interactions(tmp_path).time_units) == units


def test_writers_scratch_is_no_data(tmp_path):
    write(tmp_path / "interactions/a.parquet", INTERACTIONS)
    write(tmp_path / "interactions/.b.parquet", INTERACTIONS)
    write(tmp_path / "interactions/_temporary.parquet", INTERACTIONS)
    assert interactions(tmp_path).num_rows == 2


@pytest.mark.parametrize(("rows", "pieces"), [(10**6, 2), (10, 16), (1, 30), (15, 10)])
def test_pieces_cover_every_row_once(tmp_path, monkeypatch, rows, pieces):
    monkeypatch.setattr(sources, "PIECE_ROWS", rows)
    for name in ("a", "b"):
        path = tmp_path / f"items/{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(WHOLE.slice(0, 73), path, row_group_size=5)
    source = items(tmp_path)
    assert len(source.pieces) == pieces
    read = [read_piece(source.fs, piece, ["item_id"]) for piece in source.pieces]
    assert pa.concat_tables(read)["item_id"].to_pylist() == WHOLE["item_id"].to_pylist()[:73] * 2

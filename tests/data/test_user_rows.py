"""Rows of users in folders of events: only files that hold them are rewritten, each whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.user_rows import Removal, forget_in_folder


def events_of(users: list, **columns: list) -> pa.Table:
    return pa.table({"user_id": users, "item_id": ["a"] * len(users)} | columns)


def put(folder: Path, name: str, table: pa.Table) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_in_a_folder_only_files_that_hold_the_user_are_rewritten(tmp_path: Path) -> None:
    put(tmp_path, "date=2026-01-01/0.parquet", events_of(["anna", "bob-bob", "anna", None]))
    put(tmp_path, "date=2026-01-01/1.parquet", events_of(["bob", "bob-bob-bob"]))
    put(tmp_path, "date=2026-01-02/0.parquet", events_of(["bob-bob"], 备注=["好"]))
    put(tmp_path, "other.parquet", pa.table({"name": ["bob-bob"]}))
    (tmp_path / "notes.txt").write_text("bob-bob")
    before = bytes_of(tmp_path)

    removed = forget_in_folder(str(tmp_path), ["bob-bob"])

    touched = ["date=2026-01-01/0.parquet", "date=2026-01-02/0.parquet"]
    assert removed == [Removal(path=path, rows=1) for path in touched]
    after = bytes_of(tmp_path)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == set(touched)
    left = pq.ParquetFile(tmp_path / touched[0]).read()
    assert left.equals(events_of(["anna", "anna", None]))
    empty = pq.ParquetFile(tmp_path / touched[1]).read()
    assert (len(empty), empty.column_names) == (0, ["user_id", "item_id", "备注"])
    assert forget_in_folder(str(tmp_path), ["bob-bob"]) == []


def test_ids_in_a_folder_may_be_numbers_or_a_dictionary(tmp_path: Path) -> None:
    put(tmp_path, "numbers.parquet", events_of([7, 77, 7]))
    put(tmp_path, "words.parquet", events_of(pa.array(["7", "77"]).dictionary_encode()))
    rows = {removal.path: removal.rows for removal in forget_in_folder(str(tmp_path), ["7"])}
    assert rows == {"numbers.parquet": 2, "words.parquet": 1}
    kinds = [pq.read_schema(tmp_path / n).field("user_id").type for n in rows]
    assert kinds[0] == pa.int64()
    assert pa.types.is_dictionary(kinds[1])


def test_a_torn_file_of_events_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "whole.parquet", events_of(["bob-bob"]))
    torn = (tmp_path / "whole.parquet").read_bytes()[:-9]
    (tmp_path / "torn.parquet").write_bytes(torn)
    with pytest.raises(ValueError, match=r"'torn.parquet' is truncated or not Parquet"):
        forget_in_folder(str(tmp_path), ["bob-bob"])
    assert (tmp_path / "torn.parquet").read_bytes() == torn

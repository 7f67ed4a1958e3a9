"""What every import has in common: which files, whole tables or none, counts that add up."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.data.importers.convert import FORMATS, convert
from recsys.data.importers.fields import identifier
from recsys.data.importers.files import find_files
from recsys.data.importers.records import LINE, Batch, Fault
from recsys.data.importers.tables import RawTables
from tests.data.importers.sources import Imported, put

RATINGS = "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n"


def batch(*items: str | None, faults: int = 0) -> Batch:
    rows = pl.DataFrame(
        {"id": items, LINE: range(1, len(items) + 1)}, {"id": pl.String, LINE: pl.UInt32}
    )
    return Batch(Path("made.csv"), rows, [Fault(9, "torn: here", "text")] * faults)


def write(folder: Path, **tables: tuple[Batch, str]) -> None:
    """Tables of one column each, an id found under the given name."""
    with RawTables(folder) as written:
        for table, (rows, column) in tables.items():
            written.add(table, rows, {"item_id": identifier(column)})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_nothing_has_its_name_before_everything_is_whole(tmp_path):
    with RawTables(tmp_path) as tables:
        tables.add("items", batch("a"), {"item_id": identifier("id")})
        tables.add("queries", batch("q"), {"query_id": identifier("id")})
        assert all(name.endswith(".partial") for name in names(tmp_path))
    assert names(tmp_path) == {"items.parquet", "queries.parquet", "rejected.jsonl"}


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    put(tmp_path / "mine.txt", "kept")
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        write(tmp_path, items=(batch("a"), "id"), queries=(batch("b"), "no such column"))
    assert names(tmp_path) == {"mine.txt"}


def test_one_table_without_rows_spoils_the_other(tmp_path):
    with pytest.raises(ValueError, match="queries: none of 3 .* became a row: torn: 2; no id: 1"):
        write(tmp_path, items=(batch("a"), "id"), queries=(batch(None, faults=2), "id"))
    assert names(tmp_path) == set()


def test_read_is_written_and_rejected_and_skipped(tmp_path):
    with RawTables(tmp_path) as tables:
        for _ in range(2):
            tables.add(
                "items",
                batch("a", "b", None, "", "  ", "c", faults=3),
                {"item_id": identifier("id")},
                skip=pl.col("id") == "b",
            )
        assert tables.counts["items"].read == 18
    counts = tables.counts["items"]
    assert (counts.read, counts.written, counts.rejected, counts.skipped) == (18, 4, 12, 2)
    assert counts.reasons == {"torn": 6, "no id": 6}


def test_a_folder_with_a_raw_table_is_not_written_to(tmp_path):
    put(tmp_path / "ml" / "ratings.csv", RATINGS)
    done = Imported("movielens", tmp_path / "ml")
    before = (done.output / "interactions.parquet").read_bytes()
    with pytest.raises(ValueError, match="already holds 'interactions': choose another output"):
        convert("movielens", [tmp_path / "ml"], done.output)
    assert (done.output / "interactions.parquet").read_bytes() == before


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_tells_what_it_reads_when_there_is_nothing_of_it(tmp_path, name):
    put(tmp_path / "in" / "notes.pdf", "not data")
    with pytest.raises(ValueError, match=r"given: notes\.pdf") as caught:
        convert(name, [tmp_path / "in"], tmp_path / "out")
    assert FORMATS[name].files in str(caught.value)


def test_an_unknown_format_is_told_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="'netflix' is not one of amazon2018, .*, tabular"):
        convert("netflix", [tmp_path], tmp_path / "out")


def test_files_are_found_below_folders_in_one_order_without_hidden_ones(tmp_path):
    wanted = [put(tmp_path / name, "x") for name in ("a/b/c.csv", "a/d.csv", "e.csv")]
    put(tmp_path / "a" / ".e.csv.partial", "x")
    assert find_files([tmp_path / "a", tmp_path / "e.csv"]) == wanted


def test_an_input_that_is_missing_or_given_twice_is_refused(tmp_path):
    put(tmp_path / "a" / "b.csv", "x")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        find_files([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="given twice"):
        find_files([tmp_path / "a", tmp_path / "a" / "b.csv"])

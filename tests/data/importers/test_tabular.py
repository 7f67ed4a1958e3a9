"""CSV, JSON lines and Parquet of any column names."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.importers.tabular import Mapped
from recsys.data.sources import INTERACTION_COLUMNS, ITEM_COLUMNS, find_source
from tests.data.importers.sources import Imported, json_lines, put

MAPPED = Mapped(columns=("user_id=reviewer", "item_id=asin", "timestamp=time", "value=stars"))
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


def csv_text(rows: list[list[str]], delimiter: str = ",") -> str:
    """Quoted where needed, lines ended by \\r\\n, as RFC 4180 says."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


def interactions(done: Imported) -> list[tuple]:
    return [tuple(row.values()) for row in done.rows("interactions")]


def test_columns_are_found_by_the_mapping_and_ids_stay_text(tmp_path):
    text = "stars,asin,extra,reviewer,time\n4,007,x,001,10\n,1e5,y,1.0,\n"
    put(tmp_path / "t" / "a.csv.gz", text)
    done = Imported("tabular", tmp_path / "t", MAPPED)
    assert done.rows("interactions") == [
        {"user_id": "001", "item_id": "007", "value": 4.0, "timestamp": 10},
        {"user_id": "1.0", "item_id": "1e5", "value": None, "timestamp": None},
    ]


def test_a_folder_of_both_tables_passes_the_checks_of_prepare(tmp_path):
    put(tmp_path / "t" / "log.csv", "user_id,item_id,timestamp,event,value\nu,a,5,view,1\n")
    put(
        tmp_path / "t" / "shop.jsonl",
        json_lines({"item_id": 12, "title": "红色帽子", "price": "$3"}),
    )
    done = Imported("tabular", tmp_path / "t")
    log = find_source(str(done.output), "interactions", INTERACTION_COLUMNS)
    shop = find_source(str(done.output), "items", ITEM_COLUMNS)
    assert log.columns == ["user_id", "item_id", "timestamp", "event", "value"]
    assert shop.columns == ["item_id", "title", "price"]
    assert (log.num_rows, shop.num_rows) == (1, 1)
    assert done.rows("items") == [{"item_id": "12", "title": "红色帽子", "price": 3.0}]


@settings(max_examples=60, deadline=None)
@given(titles=st.lists(WORDS, min_size=1, max_size=6), delimiter=st.sampled_from(",;|\t"))
def test_any_quoted_text_comes_through_csv_as_it_was(tmp_path_factory, titles, delimiter):
    folder = tmp_path_factory.mktemp("csv")
    rows = [["item_id", "title"], *([f"i{n}", title] for n, title in enumerate(titles))]
    put(folder / "t" / "items.csv", csv_text(rows, delimiter))
    done = Imported("tabular", folder / "t", Mapped(delimiter=delimiter))
    found = [row["title"] for row in done.rows("items")]
    assert found == [title if title.strip() else None for title in titles]


def test_bad_csv_lines_are_rejected_and_the_next_line_is_read(tmp_path):
    text = (
        "user_id,item_id,timestamp\n"
        "u1,a,1\n"
        "u2,b\n"
        'u3,"b"x,3\n'
        "\n"
        'u4,"two\nlines",4\n'
        "u5,c,12:30\n"
        ",c,6\n"
        "u7,c,7\n"
    )
    put(tmp_path / "t" / "log.csv", text)
    done = Imported("tabular", tmp_path / "t")
    assert [row[:2] for row in interactions(done)] == [
        ("u1", "a"),
        ("u4", "two\nlines"),
        ("u7", "c"),
    ]
    assert sorted(line for _, line, _ in done.told()) == [3, 4, 8, 9]
    by_line = {entry["line"]: entry for entry in done.rejected()}
    assert by_line[3]["reason"] == "2 fields instead of 3"
    assert by_line[4]["content"] == 'u3,"b"x,3'
    assert by_line[8]["content"] == {"user_id": "u5", "item_id": "c", "timestamp": "12:30"}
    assert by_line[9]["reason"] == "no user_id"
    counts = done.counts["interactions"]
    assert counts.read == 7 == counts.written + counts.rejected


def test_a_quote_that_never_ends_is_told_with_the_lines_it_took(tmp_path):
    put(tmp_path / "t" / "log.csv", 'user_id,item_id\nu1,a\nu2,"b\nu3,c\nu4,d\n')
    done = Imported("tabular", tmp_path / "t")
    assert interactions(done) == [("u1", "a")]
    (entry,) = done.rejected()
    assert entry["line"] == 3
    assert "(lines 3 to 5)" in entry["reason"]
    assert entry["content"] == 'u2,"b\nu3,c\nu4,d'


@pytest.mark.parametrize(
    ("unit", "given", "seconds"),
    [
        ("s", "1700000000", 1_700_000_000),
        ("s", "1700000000.9", 1_700_000_000),
        ("s", "-1", -1),
        ("ms", "1700000000999", 1_700_000_000),
        ("us", "1700000000999999", 1_700_000_000),
        ("ns", "1700000000999999999", 1_700_000_000),
        ("iso", "2023-11-14T22:13:20Z", 1_700_000_000),
        ("iso", "2023-11-15 06:13:20+08:00", 1_700_000_000),
        ("iso", "2023-11-14 22:13:20.5", 1_700_000_000),
        ("iso", "2023-11-14", 1_699_920_000),
        ("iso", "14.11.2023", None),
        ("s", "1e400", None),
        ("s", "2023-11-14", None),
    ],
)
def test_times_become_unix_seconds(tmp_path, unit, given, seconds):
    put(tmp_path / "t" / "log.csv", f"user_id,item_id,timestamp\nu,a,{given}\nv,b,\n")
    done = Imported("tabular", tmp_path / "t", Mapped(time_unit=unit))
    rows = {row["user_id"]: row["timestamp"] for row in done.rows("interactions")}
    assert rows == ({"u": seconds, "v": None} if seconds is not None else {"v": None})
    assert len(done.rejected()) == (seconds is None)


def test_parquet_times_and_lists_and_integers_are_read_by_their_type(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    moment = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    log = {
        "user_id": pa.array([1, 2], pa.int32()),
        "item_id": pa.array(["a", "b"]).dictionary_encode(),
        "timestamp": pa.array([moment, None], pa.timestamp("us", tz="Asia/Shanghai")),
        "value": [0.1, float("nan")],
    }
    pq.write_table(pa.table(log), folder / "log.parquet")
    shop = {"item_id": [7], "title": ["hat"], "category": [["men", "hats"]], "price": [9]}
    pq.write_table(pa.table(shop), folder / "shop.parquet")
    done = Imported("tabular", folder, Mapped(time_unit="ms"))
    assert done.rows("interactions") == [
        {"user_id": "1", "item_id": "a", "value": 0.1, "timestamp": 1_700_000_000},
        {"user_id": "2", "item_id": "b", "value": None, "timestamp": None},
    ]
    assert done.rows("items") == [
        {"item_id": "7", "title": "hat", "category": "men hats", "price": 9.0}
    ]


def test_a_parquet_date_is_its_first_second(tmp_path):
    (tmp_path / "t").mkdir()
    log = {"user_id": ["u"], "item_id": ["a"], "timestamp": [date(2023, 11, 14)]}
    pq.write_table(pa.table(log), tmp_path / "t" / "log.parquet")
    assert interactions(Imported("tabular", tmp_path / "t"))[0][-1] == 1_699_920_000


def test_a_json_key_that_only_some_lines_have_is_a_column(tmp_path):
    lines = json_lines(
        {"item_id": "a", "title": "hat"}, {"item_id": "b", "title": "cap", "brand": ["X", "Y"]}
    )
    put(tmp_path / "t" / "items.ndjson", lines)
    rows = Imported("tabular", tmp_path / "t").rows("items")
    assert [row["brand"] for row in rows] == [None, "X Y"]


def test_chinese_csv_in_its_own_encoding_with_a_byte_order_mark_and_windows_lines(tmp_path):
    put(tmp_path / "g" / "items.csv", "item_id,title\r\na,红色帽子\r\n", "gb18030")
    assert Imported("tabular", tmp_path / "g", Mapped(encoding="gb18030")).rows("items") == [
        {"item_id": "a", "title": "红色帽子"}
    ]
    put(tmp_path / "b" / "items.csv", "item_id,title\r\na,红色帽子\r\n", "utf-8-sig")
    assert Imported("tabular", tmp_path / "b").rows("items")[0]["item_id"] == "a"


def float_id(folder: Path) -> None:
    pq.write_table(pa.table({"user_id": [1.5], "item_id": ["a"]}), folder / "x.parquet")


def struct_title(folder: Path) -> None:
    pq.write_table(pa.table({"item_id": ["a"], "title": [{"en": "hat"}]}), folder / "x.parquet")


def torn(folder: Path) -> None:
    put(folder / "x.parquet", b"PAR1 and no more")


def two_schemas(folder: Path) -> None:
    put(folder / "x.csv", "item_id,title\na,b\n")
    put(folder / "y.csv", "item_id,title,price\na,b,1\n")


def no_rows(folder: Path) -> None:
    put(folder / "x.csv", "item_id,title\n")


def only_bad_rows(folder: Path) -> None:
    put(folder / "x.csv", "item_id,title\n,b\n,c\n")


def other_columns(folder: Path) -> None:
    put(folder / "x.csv", "a,b\n1,2\n")


@pytest.mark.parametrize(
    ("make", "mapped", "message"),
    [
        (float_id, Mapped(), r"x\.parquet: 'user_id' is a float"),
        (struct_title, Mapped(), r"x\.parquet: column 'title' is struct"),
        (torn, Mapped(), r"x\.parquet is empty, truncated or not Parquet"),
        (two_schemas, Mapped(), r"y\.csv has item_id, title, price .* convert them apart"),
        (no_rows, Mapped(), r"items: none of 0 records became a row"),
        (only_bad_rows, Mapped(), r"none of 2 records became a row: no item_id: 2"),
        (other_columns, Mapped(), r"x\.csv has a, b: neither a user_id and an item_id"),
        (other_columns, Mapped(columns=("user_id=user",)), r"no file has 'user'.*: a, b"),
        (other_columns, Mapped(columns=("user=a",)), r"'user=a' is not <ours>=<the file's>"),
        (other_columns, Mapped(columns=("user_id",)), r"'user_id=' is not <ours>="),
        (other_columns, Mapped(encoding="klingon"), r"unknown encoding: klingon"),
    ],
)
def test_what_cannot_be_read_is_told_and_leaves_nothing(tmp_path, make, mapped, message):
    (tmp_path / "t").mkdir()
    make(tmp_path / "t")
    with pytest.raises(ValueError, match=message):
        Imported("tabular", tmp_path / "t", mapped)
    assert list((tmp_path / "t-raw").iterdir()) == []

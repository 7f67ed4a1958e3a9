"""Checking of the catalogue: what costs an item a value, what costs the item, and the counts."""

from __future__ import annotations

import base64
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys import schema
from recsys.config import PrepareConfig
from recsys.data.item_rules import CheckedItems, check_items

CONFIG = PrepareConfig()
ITEM_SCHEMA = pa.schema(
    {
        "item_id": pa.string(),
        "title": pa.string(),
        "description": pa.string(),
        "brand": pa.string(),
        "price": pa.float64(),
    }
)


def check(rows: list[dict], config: PrepareConfig = CONFIG) -> CheckedItems:
    return check_items(pa.Table.from_pylist(rows, ITEM_SCHEMA), config)


def item(item_id: str | None, title: str | None = "hat", **values) -> dict:
    row = dict.fromkeys(ITEM_SCHEMA.names) | {"item_id": item_id, "title": title}
    return row | values


def reasons(checked: CheckedItems) -> list[tuple]:
    return [(row[schema.RULE], row["item_id"]) for row in checked.bad.to_pylist()]


GARBAGE = {
    "empty": ["<br>", "\u200b\u202e", "<p>&nbsp;</p>"],
    "unreadable": ["\ufffd\ufffd\ufffd\ufffdhat", "\x01\x02\x03\x04hat"],
    "no_letters": ["---", "?!", "...", "\ufffd", "🔥🔥"],
    "repeated": ["xxxx", "AAAa", "1 1 1 1", "啊啊啊"],
    "placeholder": [
        "NULL",
        "n/a",
        "[None]",
        "Untitled",
        " test ",
        "未知",
        "テスト",
        "(Без названия)",
        "NaN",
    ],
    "blob": [
        "d41d8cd98f00b204e9800998ecf8427e",
        "123e4567-e89b-12d3-a456-426614174000",
        base64.b64encode(bytes(range(60))).decode(),
        "data:image/png;base64,iVBORw0KGgo=",
    ],
}
TITLES = [
    "钟",
    "AA",
    "1984",
    "Test tube",
    "Unknown Pleasures",
    "NA 98% pure sodium",
    "hp-laserjet-pro-m404n-printer-black",
    "Donaudampfschifffahrtsgesellschaftskapitän",
    "9780140449136",
    "caf\ufffd",
    "قبعة",
    "🔥 hot",
]


@pytest.mark.parametrize("rule", GARBAGE)
def test_a_garbage_title_costs_the_title_and_is_counted_by_its_rule(rule):
    rows = [item(f"i{n}", title, description="red") for n, title in enumerate(GARBAGE[rule])]
    checked = check(rows)
    assert checked.good["title"].to_pylist() == [None] * len(rows)
    assert checked.good["description"].to_pylist() == ["red"] * len(rows)
    if rule == "no_letters":  # of which one is the replacement character
        assert checked.warnings.pop("title_garbage_unreadable") == 1
        assert checked.warnings == {
            "title_garbage_no_letters": len(rows) - 1,
            "title_garbage": len(rows),
        }
    else:
        assert checked.warnings == {f"title_garbage_{rule}": len(rows), "title_garbage": len(rows)}
    assert len(checked.bad) == 0


@pytest.mark.parametrize("title", TITLES)
def test_titles_that_only_look_odd_stay(title):
    checked = check([item("a", title)])
    assert checked.good["title"].to_pylist() == [title]
    assert checked.warnings == {}


def test_an_item_with_nothing_left_to_read_stays_and_is_counted():
    rows = [
        item("a", "<br>N/A", description="", brand="unknown", price=1.0),
        item("b", None),
        item("c", "xxxx", brand="Acme"),
    ]
    checked = check(rows)
    assert checked.good.to_pylist() == [
        item("a", None, price=1.0),
        item("b", None),
        item("c", None, brand="Acme"),
    ]
    assert len(checked.bad) == 0
    assert checked.warnings["nothing_to_read"] == 2
    assert checked.warnings["brand_placeholder"] == 1
    assert checked.warnings["title_garbage"] == 2


def test_words_for_nothing_become_null_in_every_text_and_are_counted():
    rows = [
        item("a", brand="N/A", description="null"),
        item("b", brand="未知", description="<br>"),
        item("c", brand="Test", description="  "),
    ]
    checked = check(rows)
    assert checked.good["brand"].to_pylist() == [None, None, "Test"]
    assert checked.good["description"].to_pylist() == [None, None, None]
    assert checked.warnings == {
        "brand_placeholder": 2,
        "description_empty": 1,
        "description_placeholder": 1,
    }


@pytest.mark.parametrize("price", [-0.01, math.inf, -math.inf, math.nan])
def test_a_price_that_is_none_becomes_null(price):
    checked = check([item("a", price=price), item("b", price=0.0), item("c")])
    assert checked.good["price"].to_pylist() == [None, 0.0, None]
    assert checked.warnings == {"bad_price": 1}


@pytest.mark.parametrize("kind", [pa.int16(), pa.float32(), pa.null()])
def test_prices_of_every_type_are_checked_and_keep_it(kind):
    price = None if kind == pa.null() else 3
    rows = pa.table({"item_id": ["a"], "title": ["hat"], "price": pa.array([price], kind)})
    checked = check_items(rows, CONFIG)
    assert checked.good["price"].to_pylist() == [price]
    assert checked.good["price"].type == kind


def test_equal_items_are_dropped_and_counted_also_where_only_cleaning_makes_them_equal():
    rows = [item("a"), item("b", None, brand="x"), item("a", "<b>hat</b> "), item("a")]
    checked = check(rows)
    assert checked.good.to_pylist() == [item("a"), item("b", None, brand="x")]
    assert (len(checked.bad), checked.duplicates) == (0, 2)


def test_items_that_differ_under_one_id_go_to_quarantine_but_the_smallest():
    rows = [
        item("a", "shoe"),
        item("a", "hat", price=3.0),
        item("b", "saw"),
        item("a", "<i>hat</i>", price=2.0),
        item("a", "null"),
    ]
    checked = check(rows)
    assert checked.good.to_pylist() == [item("a", "hat", price=2.0), item("b", "saw")]
    assert reasons(checked) == [("duplicate_item_id", "a")] * 3
    assert checked.bad["title"].to_pylist() == ["hat", "null", "shoe"]
    assert checked.duplicates == 0


def test_what_is_known_comes_before_what_is_not():
    checked = check([item("a"), item("a", price=2.0)])
    assert checked.good["price"].to_pylist() == [2.0]


def test_items_without_an_id_go_to_quarantine_even_where_they_are_equal():
    checked = check([item(None), item("a"), item(""), item(None)])
    assert checked.good.to_pylist() == [item("a")]
    assert reasons(checked) == [("null_item_id", "")] + [("null_item_id", None)] * 2
    assert checked.duplicates == 0


def test_only_kept_items_are_warned_of():
    checked = check(
        [item("a", "zebra", price=-1.0), item("a", "hat"), item(None, "null", price=-1.0)]
    )
    assert checked.good.to_pylist() == [item("a")]
    assert checked.warnings == {}


def test_items_without_rows_stay_so():
    checked = check([])
    assert (len(checked.good), len(checked.bad), checked.duplicates) == (0, 0, 0)
    assert checked.bad.column_names == [*ITEM_SCHEMA.names, schema.RULE, schema.RULE_VALUE]


def test_a_column_of_nulls_is_a_text_like_any_other():
    rows = pa.table({"item_id": ["a"], "title": ["hat"], "brand": pa.nulls(1)})
    assert check_items(rows, CONFIG).good["brand"].to_pylist() == [None]


def test_other_columns_are_carried_along():
    rows = pa.table(
        {"item_id": ["b", None], "title": ["hat", "hat"], schema.SOURCE_FILE: ["x", "y"]}
    )
    checked = check_items(rows, CONFIG)
    assert checked.good[schema.SOURCE_FILE].to_pylist() == ["x"]
    assert checked.bad[schema.SOURCE_FILE].to_pylist() == ["y"]


def test_bytes_that_are_no_text_are_shown_as_such_and_crash_nothing():
    raw = pa.array([b"caf\xe9 noir", b"ok"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    checked = check_items(pa.table({"item_id": ["a", "b"], "title": broken}), CONFIG)
    assert checked.good["title"].to_pylist() == ["caf\ufffd noir", "ok"]


def test_texts_are_cut_at_the_length_of_the_config():
    config = PrepareConfig(max_text_chars=5)
    assert check([item("a", "long title")], config).good["title"].to_pylist() == ["long"]


def test_languages_are_told_where_they_are_asked_for():
    rows = [item("a", "红色羊毛帽子"), item("b", "<br>", description="Rote Wollmütze für Herren")]
    checked = check(rows, PrepareConfig(detect_language=True))
    assert checked.good["language"].to_pylist() == ["zh", "de"]
    assert "language" not in check(rows).good.column_names


item_rows = st.lists(
    st.builds(
        item,
        st.sampled_from(["a", "b", "c", "", None]),
        st.sampled_from(["hat", "<b>hat</b>", "shoe", "null", "xxxx", "", None]),
        brand=st.sampled_from(["Acme", "N/A", None]),
        price=st.sampled_from([1.0, 2.0, -1.0, math.nan, None]),
    ),
    max_size=14,
)


def comparable(table: pa.Table) -> list[str]:
    """The rows as text, in which NaN equals NaN."""
    return [repr(row) for row in table.to_pylist()]


@settings(deadline=None, max_examples=100)
@given(rows=item_rows, seed=st.integers(0, 1000))
@example(rows=[item("a", price=p) for p in (None, math.nan, 1.0)], seed=1)
def test_no_row_is_lost_and_the_order_of_the_rows_changes_nothing(rows, seed):
    shuffled = [rows[n] for n in np.random.default_rng(seed).permutation(len(rows))]
    one, two = check(rows), check(shuffled)
    assert len(one.good) + len(one.bad) + one.duplicates == len(rows)
    assert one.good["item_id"].to_pylist() == sorted(set(one.good["item_id"].to_pylist()))
    assert comparable(one.good) == comparable(two.good)
    assert comparable(one.bad) == comparable(two.bad)
    assert (one.warnings, one.duplicates) == (two.warnings, two.duplicates)
    readable = {row["item_id"] for row in rows if row["title"] in ("hat", "<b>hat</b>", "shoe")}
    assert readable - {"", None} <= set(one.good["item_id"].to_pylist())


def test_checked_items_stay_as_they_are():
    rows = [item("a", "<b>hat</b>", price=-1.0), item("b", "xxxx", brand="Acme"), item("c", "ok")]
    once = check(rows).good
    twice = check_items(once, CONFIG)
    assert twice.good.equals(once)
    assert (len(twice.bad), twice.duplicates, twice.warnings) == (0, 0, {})

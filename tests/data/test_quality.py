"""Row rules: which row is bad, why, and that no row is lost on the way."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys import schema
from recsys.data.quality import (
    MAX_SECONDS,
    RULE_ADVICE,
    apply_rules,
    check_counts,
    check_items,
    check_share,
    count_reasons,
    interaction_rules,
    normalise,
)

ITEM_IDS = ("a", "b", "c")
EVENTS = ("view", "purchase")
GOOD = {
    "user_id": "u",
    "item_id": "a",
    "timestamp": 1_700_000_000,
    "event": "view",
    "value": 1.0,
    "order": 3,
    "split": "train",
}
RAW_SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "timestamp": pa.int64(),
        "event": pa.string(),
        "value": pa.float64(),
        "order": pa.int32(),
        "split": pa.string(),
    }
)
ITEM_SCHEMA = pa.schema({"item_id": pa.string(), "title": pa.string(), "price": pa.float64()})


def normalised(rows: list[dict]) -> pa.Table:
    return normalise(pa.Table.from_pylist(rows, RAW_SCHEMA), RAW_SCHEMA.names)


def known_item(table: pa.Table) -> pa.Array:
    return pa.array([item in ITEM_IDS for item in table["item_id"].to_pylist()], pa.bool_())


def divide(rows: list[dict], strategy: str = "column") -> tuple[pa.Table, pa.Table]:
    """(good, bad) of raw rows, each row with its `number`."""
    table = normalised(rows).append_column("number", pa.array(range(len(rows)), pa.int64()))
    return apply_rules(table, interaction_rules(known_item, EVENTS, strategy))


def numbers(table: pa.Table) -> list[int]:
    return table["number"].to_pylist()


def items(rows: list[tuple]) -> pa.Table:
    dicts = [dict(zip(ITEM_SCHEMA.names, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(dicts, ITEM_SCHEMA)


BROKEN = [
    ("null_user_id", {"user_id": None}),
    ("null_user_id", {"user_id": ""}),
    ("null_item_id", {"item_id": None}),
    ("null_item_id", {"item_id": ""}),
    ("unknown_item", {"item_id": "z"}),
    ("no_time_or_order", {"timestamp": None, "order": None}),
    ("negative_timestamp", {"timestamp": -1}),
    ("timestamp_not_seconds", {"timestamp": 1_700_000_000_000}),
    ("timestamp_not_seconds", {"timestamp": MAX_SECONDS + 1}),
    ("unknown_event", {"event": "wiew"}),
    ("unknown_event", {"event": ""}),
    ("unknown_split", {"split": "tset"}),
    ("unknown_split", {"split": None}),
]
HARMLESS = [
    {"timestamp": 0},
    {"timestamp": MAX_SECONDS},
    {"timestamp": None},
    {"order": None},
    {"event": None},
    {"event": "purchase"},
    {"value": None},
    {"value": -2.5},
    {"split": "test"},
    {"split": "valid"},
]


@pytest.mark.parametrize(("reason", "change"), BROKEN)
def test_a_rule_fires_on_the_row_that_breaks_it_and_only_there(reason, change):
    good, bad = divide([GOOD, GOOD | change, GOOD])
    assert numbers(good) == [0, 2]
    assert numbers(bad) == [1]
    assert bad[schema.REASON].to_pylist() == [reason]
    assert schema.REASON not in good.column_names


@pytest.mark.parametrize("change", HARMLESS)
def test_a_row_that_breaks_no_rule_goes_on(change):
    good, bad = divide([GOOD | change])
    assert (len(good), len(bad)) == (1, 0)


def test_every_rule_is_tried_here_and_has_advice():
    by_column = interaction_rules(known_item, EVENTS, "column")
    rules = by_column | interaction_rules(known_item, EVENTS, "time")
    assert {reason for reason, _ in BROKEN} == set(by_column)
    assert set(rules) | {"duplicate_item_id"} == set(RULE_ADVICE)


def test_the_first_broken_rule_is_the_reason():
    everything = {"user_id": None, "item_id": None, "timestamp": -1, "event": "?", "split": "?"}
    repaired = [
        ("null_user_id", {}),
        ("null_item_id", {"user_id": "u"}),
        ("unknown_item", {"item_id": "z"}),
        ("negative_timestamp", {"item_id": "a"}),
        ("unknown_event", {"timestamp": 5}),
        ("unknown_split", {"event": "view"}),
    ]
    rows, row = [], GOOD | everything
    for _, change in repaired:
        row = row | change
        rows.append(row)
    _, bad = divide(rows)
    assert bad[schema.REASON].to_pylist() == [reason for reason, _ in repaired]


def test_the_split_counts_only_where_it_is_needed():
    good, bad = divide(
        [GOOD | {"split": "tset"}, GOOD | {"split": None}], strategy="leave_last_out"
    )
    assert (len(good), len(bad)) == (2, 0)


def test_bad_rows_keep_their_content():
    row = GOOD | {"item_id": "z", "timestamp": 5}
    _, bad = divide([row])
    assert bad.to_pylist() == [row | {"number": 0, schema.REASON: "unknown_item"}]


def test_a_table_without_rows_stays_one():
    good, bad = divide([])
    assert (len(good), len(bad)) == (0, 0)
    assert schema.REASON in bad.column_names


def expected_reason(row: dict) -> str | None:
    """The rules once more, one row at a time."""
    time = row["timestamp"]
    broken = {
        "null_user_id": not row["user_id"],
        "null_item_id": not row["item_id"],
        "unknown_item": row["item_id"] not in ITEM_IDS,
        "no_time_or_order": time is None and row["order"] is None,
        "negative_timestamp": time is not None and time < 0,
        "timestamp_not_seconds": time is not None and time > MAX_SECONDS,
        "unknown_event": row["event"] is not None and row["event"] not in EVENTS,
        "unknown_split": row["split"] not in schema.SPLITS,
    }
    return next((reason for reason, is_broken in broken.items() if is_broken), None)


rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["u", "v", "v", "v", "", None]),
            "item_id": st.sampled_from([*ITEM_IDS, *ITEM_IDS, "z", "", None]),
            "timestamp": st.sampled_from([0, 5, 9, MAX_SECONDS, MAX_SECONDS + 1, -1, None]),
            "event": st.sampled_from([*EVENTS, None, "?"]),
            "value": st.sampled_from([1.0, None]),
            "order": st.sampled_from([1, 2, None]),
            "split": st.sampled_from([*schema.SPLITS, *schema.SPLITS, "?", None]),
        }
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=100)
@given(rows=rows_of_any_kind)
def test_no_row_is_lost_and_the_order_is_kept(rows):
    good, bad = divide(rows)
    reasons = dict(zip(numbers(bad), bad[schema.REASON].to_pylist(), strict=True))
    assert reasons == {n: r for n, row in enumerate(rows) if (r := expected_reason(row))}
    assert numbers(good) == [n for n in range(len(rows)) if n not in reasons]
    assert numbers(bad) == sorted(numbers(bad))
    assert sum(count_reasons(bad).values()) == len(rows) - len(good)


def test_columns_that_the_source_lacks_are_null():
    table = normalise(pa.table({"user_id": ["u"], "item_id": ["a"], "other": [1]}), ["user_id"])
    assert table.column_names == RAW_SCHEMA.names
    assert table.to_pylist() == [dict.fromkeys(RAW_SCHEMA.names) | {"user_id": "u"}]


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8(), pa.uint32()])
def test_integer_ids_become_strings(kind):
    raw = pa.table({"user_id": pa.array([7, None], kind), "item_id": pa.array([100, 0], kind)})
    table = normalise(raw, ["user_id", "item_id"])
    assert table["user_id"].to_pylist() == ["7", None]
    assert table["item_id"].to_pylist() == ["100", "0"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai"])
def test_timestamps_of_every_arrow_type_become_seconds(unit, zone):
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=datetime.UTC)
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ticks = int(moment.timestamp()) * units + (units - 1)
    times = pa.array([ticks, None], pa.int64()).cast(pa.timestamp(unit, tz=zone))
    table = normalise(pa.table({"timestamp": times}), ["timestamp"])
    assert table["timestamp"].to_pylist() == [int(moment.timestamp()), None]


def test_equal_items_are_dropped_and_counted():
    row, other = ("a", "hat", 1.0), ("b", None, None)
    good, bad, dropped = check_items(items([row, other, row, row, other]))
    assert good.equals(items([row, other]))
    assert (len(bad), dropped) == (0, 3)


def test_items_that_differ_under_one_id_go_to_quarantine_but_the_smallest():
    rows = [("a", "shoe", 1.0), ("a", "hat", 3.0), ("b", "saw", 1.0), ("a", "hat", 2.0)]
    good, bad, dropped = check_items(items(rows))
    assert good.equals(items([("a", "hat", 2.0), ("b", "saw", 1.0)]))
    assert bad.drop_columns([schema.REASON]).equals(items([rows[1], rows[0]]))
    assert count_reasons(bad) == {"duplicate_item_id": 2}
    assert dropped == 0


def test_items_without_an_id_go_to_quarantine_even_where_they_are_equal():
    rows = [(None, "hat", 1.0), ("a", "hat", 1.0), ("", "hat", 1.0), (None, "hat", 1.0)]
    good, bad, dropped = check_items(items(rows))
    assert good.equals(items([rows[1]]))
    assert count_reasons(bad) == {"null_item_id": 3}
    assert dropped == 0


def test_items_without_rows_stay_so():
    good, bad, dropped = check_items(items([]))
    assert (len(good), len(bad), dropped) == (0, 0, 0)


item_rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "", None]),
        st.sampled_from(["hat", "shoe", "", None]),
        st.sampled_from([1.0, 2.0, float("nan"), None]),
    ),
    max_size=14,
)


def comparable(table: pa.Table) -> list[str]:
    """The rows as text, in which NaN equals NaN."""
    return [repr(row) for row in table.to_pylist()]


@settings(deadline=None, max_examples=100)
@given(rows=item_rows, seed=st.integers(0, 1000))
@example(rows=[("a", "hat", None), ("a", "hat", float("nan")), ("a", "hat", 1.0)], seed=1)
def test_the_catalogue_does_not_depend_on_the_order_of_the_rows(rows, seed):
    shuffled = [rows[n] for n in np.random.default_rng(seed).permutation(len(rows))]
    good, bad, dropped = check_items(items(rows))
    good_too, bad_too, dropped_too = check_items(items(shuffled))
    assert comparable(good) == comparable(good_too)
    assert sorted(comparable(bad)) == sorted(comparable(bad_too))
    assert dropped == dropped_too
    assert len(good) + len(bad) + dropped == len(rows)
    ids = good["item_id"].to_pylist()
    assert ids == sorted({item for item, _, _ in rows if item})


def test_reasons_are_counted_most_frequent_first():
    reasons = ["null_item_id"] + ["unknown_item"] * 3 + ["null_user_id"] * 2
    bad = pa.table({schema.REASON: reasons})
    counted = {"unknown_item": 3, "null_user_id": 2, "null_item_id": 1}
    assert list(count_reasons(bad).items()) == list(counted.items())
    assert count_reasons(bad.slice(0, 0)) == {}


def counts(read: int, kept: int, quarantined: int, dropped: int, **reasons: int) -> dict:
    numbers = {"read": read, "kept": kept, "quarantined": quarantined}
    return numbers | {"dropped_duplicates": dropped, "reasons": reasons}


def test_counts_that_add_up_are_taken():
    check_counts("items", counts(10, 6, 3, 1))


@pytest.mark.parametrize("wrong", [(10, 5, 3, 1), (10, 6, 4, 1), (10, 6, 3, 0), (9, 6, 3, 1)])
def test_counts_that_do_not_add_up_are_an_error(wrong):
    accounted = sum(wrong[1:])
    with pytest.raises(RuntimeError, match=f"items: {wrong[0]} rows read but {accounted} account"):
        check_counts("items", counts(*wrong))


def test_a_share_at_the_limit_is_taken():
    check_share("items", counts(10, 8, 2, 0, unknown_item=2), 0.2)


def test_a_share_above_the_limit_is_told_with_reasons_and_advice():
    found = counts(10, 7, 3, 0, timestamp_not_seconds=2, unknown_event=1)
    with pytest.raises(ValueError, match="interactions: 3 of 10 rows are bad") as caught:
        check_share("interactions", found, 0.2)
    message = str(caught.value)
    assert "prepare.max_quarantine_share" in message
    assert "timestamp_not_seconds: 2 rows (timestamps must be Unix seconds: divide" in message
    assert "unknown_event: 1 rows (the event is not in prepare.events" in message


def test_a_table_of_bad_rows_only_is_refused_whatever_the_limit():
    with pytest.raises(ValueError, match="items: 2 of 2 rows are bad"):
        check_share("items", counts(2, 0, 2, 0, null_item_id=2), 1.0)


def test_a_split_by_time_needs_a_timestamp_in_every_row() -> None:
    rows = [GOOD | {"timestamp": None, "order": 3}, GOOD]
    good, bad = divide(rows, strategy="time")
    assert bad["reason"].to_pylist() == ["no_timestamp"]
    assert len(good) == 1
    assert len(divide(rows, strategy="leave_last_out")[0]) == 2

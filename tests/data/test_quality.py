"""Row rules: which row is bad, why, and that no row is lost on the way."""

from __future__ import annotations

import datetime

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import schema
from recsys.config import PrepareConfig
from recsys.data.quality import (
    ADVICE,
    NUM_EXAMPLES,
    RAW,
    apply_rules,
    check_counts,
    check_shares,
    merge_summaries,
    normalise,
    rules_for,
    summarise,
    with_indexes,
)

ITEM_IDS = ("a", "b", "c")
EVENTS = ("view", "purchase")
CATALOGUE = pl.DataFrame(
    {"item_id": ITEM_IDS, "item_index": range(3)}, schema_overrides={"item_index": pl.Int32}
)
NOW = 1_800_000_000
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


def divide(
    rows: list[dict], strategy: str = "column", unit: str = "auto"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(good, bad) of raw rows; each row's `value` is its place."""
    numbered = [row | {"value": float(n)} for n, row in enumerate(rows)]
    frame = normalise(pa.Table.from_pylist(numbered, RAW_SCHEMA))
    config = PrepareConfig(events=EVENTS, timestamp_unit=unit)
    return apply_rules(with_indexes(frame, CATALOGUE, config, NOW), rules_for(strategy))


def numbers(frame: pl.DataFrame) -> list[int]:
    return [int(value) for value in frame["value"]]


BROKEN = [
    ("null_user_id", {"user_id": None}),
    ("null_user_id", {"user_id": ""}),
    ("null_item_id", {"item_id": None}),
    ("null_item_id", {"item_id": ""}),
    ("unknown_item", {"item_id": "z"}),
    ("no_time_or_order", {"timestamp": None, "order": None}),
    ("negative_timestamp", {"timestamp": -1}),
    ("future_timestamp", {"timestamp": NOW + 1}),
    ("future_timestamp", {"timestamp": 1000 * (NOW + 1)}),
    ("future_timestamp", {"timestamp": 2**63 - 1}),
    ("unknown_event", {"event": "wiew"}),
    ("unknown_event", {"event": ""}),
    ("unknown_split", {"split": "tset"}),
    ("unknown_split", {"split": None}),
]
HARMLESS = [
    {"timestamp": 0},
    {"timestamp": NOW},
    {"timestamp": NOW * 10**3 + 999},
    {"timestamp": NOW * 10**6},
    {"timestamp": NOW * 10**9},
    {"timestamp": None},
    {"order": None},
    {"event": None},
    {"event": "purchase"},
    {"split": "test"},
    {"split": "valid"},
]


@pytest.mark.parametrize(("reason", "change"), BROKEN)
def test_a_rule_fires_on_the_row_that_breaks_it_and_only_there(reason, change):
    good, bad = divide([GOOD, GOOD | change, GOOD])
    assert numbers(good) == [0, 2]
    assert numbers(bad) == [1]
    assert bad[schema.RULE].to_list() == [reason]
    assert bad.columns == [*RAW, schema.RULE, schema.RULE_VALUE]


@pytest.mark.parametrize("change", HARMLESS)
def test_a_row_that_breaks_no_rule_goes_on(change):
    good, bad = divide([GOOD | change])
    assert (len(good), len(bad)) == (1, 0)


def test_every_rule_that_fires_here_has_advice():
    assert {reason for reason, _ in BROKEN} <= set(ADVICE)


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
    assert bad[schema.RULE].to_list() == [reason for reason, _ in repaired]


def test_the_split_counts_only_where_it_is_needed():
    good, bad = divide(
        [GOOD | {"split": "tset"}, GOOD | {"split": None}], strategy="leave_last_out"
    )
    assert (len(good), len(bad)) == (2, 0)


def test_bad_rows_keep_their_content_and_show_what_is_wrong():
    rows = [GOOD | {"item_id": "z"}, GOOD | {"timestamp": -7}, GOOD | {"event": "浏览"}]
    _, bad = divide(rows)
    shown = dict(zip(bad[schema.RULE], bad[schema.RULE_VALUE], strict=True))
    assert shown == {"unknown_item": "z", "negative_timestamp": "-7", "unknown_event": "浏览"}
    for row, found in zip(rows, bad.to_dicts(), strict=True):
        assert {name: found[name] for name in GOOD if name != "value"} == {
            name: value for name, value in row.items() if name != "value"
        }


def test_a_table_without_rows_stays_one():
    good, bad = divide([])
    assert (len(good), len(bad)) == (0, 0)
    assert bad.columns == [*RAW, schema.RULE, schema.RULE_VALUE]


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]
)
@pytest.mark.parametrize("told", ["auto", "as it is"])
def test_integer_times_of_every_unit_become_seconds(unit, factor, told):
    row = GOOD | {"timestamp": 1_700_000_000 * factor + factor - 1}
    good, _ = divide([row, GOOD | {"timestamp": None}], unit=unit if told != "auto" else "auto")
    assert good["seconds"].to_list() == [1_700_000_000, None]


def test_a_told_unit_is_believed_rather_than_guessed():
    good, bad = divide([GOOD | {"timestamp": 90_000_000_000}], unit="ms")
    assert good["seconds"].to_list() == [90_000_000]
    assert divide([GOOD | {"timestamp": 90_000_000_000}])[1][schema.RULE].to_list() == [
        "future_timestamp"
    ]


def expected_reason(row: dict) -> str | None:
    """The rules once more, one row at a time."""
    time = row["timestamp"]
    broken = {
        "null_user_id": not row["user_id"],
        "null_item_id": not row["item_id"],
        "unknown_item": row["item_id"] not in ITEM_IDS,
        "no_time_or_order": time is None and row["order"] is None,
        "negative_timestamp": time is not None and time < 0,
        "future_timestamp": time is not None and time > NOW,
        "unknown_event": row["event"] is not None and row["event"] not in EVENTS,
        "unknown_split": row["split"] not in schema.SPLITS,
    }
    return next((reason for reason, is_broken in broken.items() if is_broken), None)


rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["u", "v", "v", "v", "", None]),
            "item_id": st.sampled_from([*ITEM_IDS, *ITEM_IDS, "z", "", None]),
            "timestamp": st.sampled_from([0, 5, 9, NOW, NOW + 1, -1, None]),
            "event": st.sampled_from([*EVENTS, None, "?"]),
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
    reasons = dict(zip(numbers(bad), bad[schema.RULE].to_list(), strict=True))
    assert reasons == {n: r for n, row in enumerate(rows) if (r := expected_reason(row))}
    assert numbers(good) == [n for n in range(len(rows)) if n not in reasons]
    assert numbers(bad) == sorted(numbers(bad))
    assert sum(summarise(bad)[0].values()) == len(rows) - len(good)


def test_columns_that_the_source_lacks_are_null():
    frame = normalise(pa.table({"user_id": ["u"], "item_id": ["a"], "other": [1]}))
    assert frame.columns == list(RAW)
    assert frame.to_dicts() == [dict.fromkeys(RAW) | {"user_id": "u", "item_id": "a"}]


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8(), pa.uint32()])
def test_integer_ids_become_strings(kind):
    raw = pa.table({"user_id": pa.array([7, None], kind), "item_id": pa.array([100, 0], kind)})
    frame = normalise(raw)
    assert frame["user_id"].to_list() == ["7", None]
    assert frame["item_id"].to_list() == ["100", "0"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai"])
def test_timestamps_of_every_arrow_type_become_seconds(unit, zone):
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=datetime.UTC)
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ticks = int(moment.timestamp()) * units + (units - 1)
    times = pa.array([ticks, None], pa.int64()).cast(pa.timestamp(unit, tz=zone))
    frame = normalise(pa.table({"timestamp": times}))
    assert frame["timestamp"].to_list() == [int(moment.timestamp()), None]


def bad_rows(*rules: str) -> pl.DataFrame:
    rows = [
        dict.fromkeys(RAW)
        | {"user_id": f"u{n}", "timestamp": n, "rule": rule, "rule_value": str(n)}
        for n, rule in enumerate(rules)
    ]
    return pl.DataFrame(rows, schema=RAW | {"rule": pl.String, "rule_value": pl.String})


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_counts_and_examples_do_not_depend_on_the_blocks(blocks):
    bad = bad_rows(*["null_item_id"] * 9, *["unknown_item"] * 12, "null_user_id")
    whole = merge_summaries([summarise(bad)])
    parts = [summarise(bad.gather_every(blocks, n)) for n in reversed(range(blocks))]
    assert merge_summaries(parts) == whole
    counts, examples = whole
    assert list(counts.items()) == [("unknown_item", 12), ("null_item_id", 9), ("null_user_id", 1)]
    assert {rule: len(rows) for rule, rows in examples.items()} == {
        "null_item_id": NUM_EXAMPLES,
        "null_user_id": 1,
        "unknown_item": NUM_EXAMPLES,
    }


def test_examples_show_the_row_but_not_the_user():
    _, examples = merge_summaries([summarise(bad_rows("unknown_item"))])
    assert examples == {"unknown_item": [{"timestamp": 0, "rule_value": "0"}]}


def counts(read: int, kept: int, quarantined: int, dropped: int, **reasons: int) -> dict:
    return {
        "read": read,
        "kept": kept,
        "quarantined": quarantined,
        "dropped": {"duplicates": dropped, "k_core": 0},
        "reasons": reasons,
        "examples": {rule: [{"rule_value": f"bad {rule}"}] for rule in reasons},
    }


def test_counts_that_add_up_are_taken():
    check_counts("items", counts(10, 6, 3, 1))


@pytest.mark.parametrize("wrong", [(10, 5, 3, 1), (10, 6, 4, 1), (10, 6, 3, 0), (9, 6, 3, 1)])
def test_counts_that_do_not_add_up_are_an_error(wrong):
    accounted = sum(wrong[1:])
    with pytest.raises(RuntimeError, match=f"items: {wrong[0]} rows read but {accounted} account"):
        check_counts("items", counts(*wrong))


def test_a_share_at_the_limit_is_taken():
    check_shares("items", counts(10, 8, 2, 0, unknown_item=2), 0.2, {"unknown_item": 0.2})


def test_a_share_above_the_limit_is_told_with_rules_examples_and_advice():
    found = counts(10, 7, 3, 0, future_timestamp=2, unknown_event=1)
    with pytest.raises(ValueError, match="interactions: 3 of 10 rows are bad") as caught:
        check_shares("interactions", found, 0.2, {})
    message = str(caught.value)
    assert "prepare.max_quarantine_share" in message
    assert "future_timestamp: 2 rows (the timestamp is later than now" in message
    assert "unknown_event: 1 rows (the event is not in prepare.events" in message
    assert "bad unknown_event" in message


def test_one_rule_may_have_a_limit_of_its_own():
    found = counts(100, 97, 3, 0, unknown_item=2, unknown_event=1)
    check_shares("interactions", found, 0.2, {"unknown_item": 0.02})
    with pytest.raises(ValueError, match="unknown_item: 2 rows") as caught:
        check_shares("interactions", found, 0.2, {"unknown_item": 0.01})
    assert "unknown_event" not in str(caught.value)


def test_a_table_of_bad_rows_only_is_refused_whatever_the_limit():
    with pytest.raises(ValueError, match="items: 2 of 2 rows are bad"):
        check_shares("items", counts(2, 0, 2, 0, null_item_id=2), 1.0, {})


def test_a_split_by_time_needs_a_timestamp_in_every_row() -> None:
    rows = [GOOD | {"timestamp": None, "order": 3}, GOOD]
    good, bad = divide(rows, strategy="time")
    assert bad[schema.RULE].to_list() == ["no_timestamp"]
    assert len(good) == 1
    assert len(divide(rows, strategy="leave_last_out")[0]) == 2


@pytest.mark.parametrize(
    ("value", "bad"),
    [(None, False), (float("nan"), False), (-3.5, False), (float("inf"), True), (-1e300, True)],
)
def test_an_unknown_value_is_good_and_one_without_bounds_is_not(value, bad):
    frame = normalise(pa.Table.from_pylist([GOOD | {"value": value}], RAW_SCHEMA))
    derived = with_indexes(frame, CATALOGUE, PrepareConfig(events=EVENTS), NOW)
    good, out = apply_rules(derived, rules_for("column"))
    assert (len(good), len(out)) == ((0, 1) if bad else (1, 0))
    assert out["rule"].to_list() == ["infinite_value"] * bad
    assert all("inf" in shown for shown in out["rule_value"])

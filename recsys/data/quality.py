"""Row rules for interactions: good rows go on, bad rows go to quarantine with rule and value.

Rules are declared with dataframely; a rule holds where its expression is true, and a row's reason
is the first rule it breaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import dataframely as dy
import polars as pl
import pyarrow as pa

from recsys import schema
from recsys.config import PrepareConfig
from recsys.data.timestamps import to_seconds

NUM_EXAMPLES = 5

ADVICE = {
    "null_user_id": "every interaction needs a user_id",
    "null_item_id": "every row needs an item_id",
    "unknown_item": "the item is not in the items table: add it there",
    "no_time_or_order": "a row needs a timestamp or an order",
    "negative_timestamp": "timestamps are 1970 or later",
    "future_timestamp": "the timestamp is later than now: check its unit and the clock",
    "no_timestamp": "a split by time needs a timestamp in every row",
    "unknown_event": "the event is not in prepare.events: add it there or map it",
    "infinite_value": "a value is a number that 32 bits can hold, or unknown",
    "unknown_split": f"split must be one of {', '.join(schema.SPLITS)}",
    "too_many_events_a_day": "more events in a day than prepare.max_events_per_day: a robot",
    "duplicate_item_id": "an item_id stands twice with different content: the first was kept",
}

RAW = {
    schema.USER_ID: pl.String,
    schema.ITEM_ID: pl.String,
    schema.TIMESTAMP: pl.Int64,
    schema.EVENT: pl.String,
    schema.VALUE: pl.Float32,
    schema.ORDER: pl.Int64,
    schema.SPLIT: pl.String,
    schema.SOURCE_FILE: pl.String,
}
"""Interactions as read and as kept in quarantine; what a source lacks is null."""

_SHOWN = {
    "null_user_id": schema.USER_ID,
    "null_item_id": schema.ITEM_ID,
    "unknown_item": schema.ITEM_ID,
    "unknown_event": schema.EVENT,
    "infinite_value": schema.VALUE,
    "unknown_split": schema.SPLIT,
}
"""The column whose value a broken rule shows; the timestamp where nothing is named."""


class InteractionRules(dy.Schema):
    """What every interaction must be. `seconds` and the indexes are derived from the raw row."""

    user_id = dy.String(nullable=True)
    item_id = dy.String(nullable=True)
    timestamp = dy.Int64(nullable=True)
    event = dy.String(nullable=True)
    value = dy.Float32(nullable=True, allow_inf=True, allow_nan=True)
    order = dy.Int64(nullable=True)
    split = dy.String(nullable=True)
    source_file = dy.String(nullable=True)
    seconds = dy.Int64(nullable=True)
    latest = dy.Int64()
    item_index = dy.Int32(nullable=True)
    event_index = dy.Int8(nullable=True)
    split_index = dy.Int8(nullable=True)

    @dy.rule()
    def null_user_id(cls) -> pl.Expr:
        """A user is named."""
        return pl.col("user_id").fill_null("") != ""

    @dy.rule()
    def null_item_id(cls) -> pl.Expr:
        """An item is named."""
        return pl.col("item_id").fill_null("") != ""

    @dy.rule()
    def unknown_item(cls) -> pl.Expr:
        """The item is in the catalogue."""
        return pl.col("item_index").is_not_null()

    @dy.rule()
    def no_time_or_order(cls) -> pl.Expr:
        """Something says where in the history the event stands."""
        return pl.col("timestamp").is_not_null() | pl.col("order").is_not_null()

    @dy.rule()
    def negative_timestamp(cls) -> pl.Expr:
        """Not before 1970."""
        return pl.col("timestamp") >= 0

    @dy.rule()
    def future_timestamp(cls) -> pl.Expr:
        """Not later than now."""
        return pl.col("seconds") <= pl.col("latest")

    @dy.rule()
    def unknown_event(cls) -> pl.Expr:
        """The event is one of those the config allows."""
        return pl.col("event").is_null() | pl.col("event_index").is_not_null()

    @dy.rule()
    def infinite_value(cls) -> pl.Expr:
        """The value is finite, or unknown: null or NaN."""
        return ~pl.col("value").is_infinite().fill_null(False)


class TimedRules(InteractionRules):
    """Interactions that are split by time."""

    @dy.rule()
    def no_timestamp(cls) -> pl.Expr:
        """The time is known."""
        return pl.col("timestamp").is_not_null()


class SplitRules(InteractionRules):
    """Interactions that say themselves what they are for."""

    @dy.rule()
    def unknown_split(cls) -> pl.Expr:
        """The part is train, valid or test."""
        return pl.col("split_index").is_not_null()


def rules_for(strategy: str) -> type[InteractionRules]:
    """The rules a split strategy needs."""
    if strategy in ("time", "ratio"):
        return TimedRules
    return SplitRules if strategy == "column" else InteractionRules


def normalise(block: pa.Table) -> pl.DataFrame:
    """Raw rows with exactly the columns of `RAW`: ids as text, timestamps as integers.

    Arrow timestamps become seconds; integers stay as they are.
    """
    frame = pl.DataFrame(pl.from_arrow(block))
    times = frame.schema.get(schema.TIMESTAMP)
    if isinstance(times, pl.Datetime):
        frame = frame.with_columns(pl.col(schema.TIMESTAMP).dt.epoch("s"))
    present = [pl.col(n).cast(kind) for n, kind in RAW.items() if n in frame.columns]
    absent = [pl.lit(None, kind).alias(n) for n, kind in RAW.items() if n not in frame.columns]
    return frame.select(*present, *absent).select(*RAW)


def with_indexes(
    frame: pl.DataFrame, catalogue: pl.DataFrame, config: PrepareConfig, latest: int
) -> pl.DataFrame:
    """Normalised rows with what the rules look at: `seconds` and the numbers of item, event, split.

    `catalogue` has item_id and item_index; a time after `latest` (Unix seconds) lies in the future.
    """
    return frame.with_columns(
        to_seconds(schema.TIMESTAMP, config.timestamp_unit).alias("seconds"),
        pl.lit(latest, pl.Int64).alias("latest"),
        _position(schema.EVENT, config.events).alias("event_index"),
        _position(schema.SPLIT, schema.SPLITS).alias("split_index"),
    ).join(catalogue, on=schema.ITEM_ID, how="left", maintain_order="left")


def _position(column: str, names: tuple[str, ...]) -> pl.Expr:
    numbers = list(range(len(names)))
    return pl.col(column).replace_strict(names, numbers, default=None, return_dtype=pl.Int8)


def apply_rules(
    frame: pl.DataFrame, rules: type[InteractionRules]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide rows into (good, bad). No row is lost.

    Bad rows are as they were read, with `rule` and the offending `rule_value`.
    """
    good, failure = rules.filter(frame)
    if not len(failure):
        return good, frame.head(0).pipe(with_rule, pl.lit(""), pl.lit(""))
    names = [name for name in ADVICE if name in failure.counts()]
    broken = [pl.when(pl.col(n) == "invalid").then(pl.lit(n)) for n in names]
    values = [
        pl.when(pl.col("_rule") == n).then(pl.col(_SHOWN.get(n, schema.TIMESTAMP)).cast(pl.String))
        for n in names
    ]
    # dataframely names its result columns after the rules, beside the row's own columns.
    details = failure.details().with_columns(pl.coalesce(broken).alias("_rule"))
    return good, details.pipe(with_rule, pl.col("_rule"), pl.coalesce(values))


def with_rule(frame: pl.DataFrame, rule: pl.Expr, value: pl.Expr | pl.Series) -> pl.DataFrame:
    """Raw rows as they stand in quarantine."""
    return frame.select(*RAW, rule.alias(schema.RULE), value.alias(schema.RULE_VALUE))


Examples = dict[str, list[tuple[int, dict]]]
"""By rule a few bad rows, each behind its hash."""


def summarise(bad: pl.DataFrame) -> tuple[dict[str, int], Examples]:
    """Bad rows counted by rule, and at most five of each.

    The five with the smallest hashes, so that it does not matter how the rows lie in files.
    """
    counts = dict(bad[schema.RULE].value_counts().iter_rows())
    hashed = bad.with_columns(bad.hash_rows(seed=0).alias("_hash")).sort("_hash")
    examples = {
        rule: [(row.pop("_hash"), _known(row)) for row in rows.head(NUM_EXAMPLES).to_dicts()]
        for (rule,), rows in hashed.group_by(schema.RULE)
    }
    return counts, examples


def _known(row: dict) -> dict:
    hidden = (schema.RULE, schema.USER_ID)  # a report is no place for who it was
    return {n: value for n, value in row.items() if value is not None and n not in hidden}


def merge_summaries(
    parts: Iterable[tuple[dict[str, int], Examples]],
) -> tuple[dict[str, int], dict[str, list[dict]]]:
    """Counts, most frequent rule first, and examples of several `summarise`."""
    counts: Counter[str] = Counter()
    examples: Examples = {}
    for some, rows in parts:
        counts.update(some)
        for rule, found in rows.items():
            examples[rule] = sorted([*examples.get(rule, []), *found], key=lambda pair: pair[0])
    chosen = {r: [row for _, row in rows[:NUM_EXAMPLES]] for r, rows in sorted(examples.items())}
    return dict(counts.most_common()), chosen


def check_counts(table: str, counts: dict) -> None:
    """Hold that read = kept + quarantined + dropped, each counted on its own.

    Raises:
        RuntimeError: rows were lost or doubled on the way.
    """
    accounted = counts["kept"] + counts["quarantined"] + sum(counts["dropped"].values())
    if counts["read"] != accounted:
        raise RuntimeError(f"{table}: {counts['read']} rows read but {accounted} accounted for")


def check_shares(
    table: str, counts: dict, max_share: float, max_rule_shares: dict[str, float]
) -> None:
    """Refuse a table with too many bad rows, in all or by one rule.

    Raises:
        ValueError: names the rules, their counts, five examples each and what to do.
    """
    read, rules = counts["read"], counts["reasons"]
    over = [rule for rule, n in rules.items() if n > max_rule_shares.get(rule, 1.0) * read]
    if counts["quarantined"] > max_share * read or not counts["kept"]:
        over = list(rules)
    elif not over:
        return
    told = "; ".join(_tell(rule, counts) for rule in over) or "every row was dropped"
    raise ValueError(
        f"{table}: {counts['quarantined']} of {read} rows are bad, which is more than "
        f"prepare.max_quarantine_share {max_share} or prepare.max_rule_shares allow: {told}"
    )


def _tell(rule: str, counts: dict) -> str:
    rows = counts["examples"].get(rule, [])
    return f"{rule}: {counts['reasons'][rule]} rows ({ADVICE[rule]}), such as {rows}"

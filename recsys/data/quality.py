"""Row rules: good rows go on, bad rows go to quarantine with the reason.

A rule says which rows break it; a row's reason is the first rule it breaks.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema

MAX_SECONDS = 100_000_000_000
"""Unix seconds of the year 5138; the same number of milliseconds is 1973, so a larger
timestamp is not in seconds."""

Rule = Callable[[pa.Table], pa.ChunkedArray | pa.Array]

RULE_ADVICE = {
    "null_user_id": "every interaction needs a user_id",
    "null_item_id": "every row needs an item_id",
    "unknown_item": "the item is not in the items table: add it there",
    "negative_timestamp": "timestamps are Unix seconds, 0 or later",
    "timestamp_not_seconds": "timestamps must be Unix seconds: divide milliseconds by 1000",
    "no_time_or_order": "a row needs a timestamp or an order",
    "no_timestamp": "a split by time needs a timestamp in every row",
    "unknown_event": "the event is not in prepare.events: add it there or map it",
    "unknown_split": f"split must be one of {', '.join(schema.SPLITS)}",
    "duplicate_item_id": "an item_id stands twice with different content: the first was kept",
}


def normalise(table: pa.Table, columns: list[str]) -> pa.Table:
    """Bring raw interactions to one schema; a column the source lacks is null.

    ids become strings, timestamps int64 Unix seconds.
    """
    kinds = {
        schema.USER_ID: pa.large_string(),
        schema.ITEM_ID: pa.large_string(),
        schema.TIMESTAMP: pa.int64(),
        schema.EVENT: pa.large_string(),
        schema.VALUE: pa.float32(),
        schema.ORDER: pa.int64(),
        schema.SPLIT: pa.large_string(),
    }
    arrays = [
        _cast(table[name], kind) if name in columns else pa.nulls(len(table), kind)
        for name, kind in kinds.items()
    ]
    return pa.table(dict(zip(kinds, arrays, strict=True)))


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("s", tz=column.type.tz), safe=False)
    return column.cast(kind, safe=False)


def interaction_rules(known_item: Rule, events: tuple[str, ...], strategy: str) -> dict[str, Rule]:
    """The rules for normalised interactions, in the order in which they are tried."""
    rules: dict[str, Rule] = {
        "null_user_id": lambda t: _blank(t[schema.USER_ID]),
        "null_item_id": lambda t: _blank(t[schema.ITEM_ID]),
        "unknown_item": lambda t: pc.invert(known_item(t)),
        "no_time_or_order": _has_no_time,
        "negative_timestamp": lambda t: pc.less(t[schema.TIMESTAMP], 0),
        "timestamp_not_seconds": lambda t: pc.greater(t[schema.TIMESTAMP], MAX_SECONDS),
        "unknown_event": lambda t: _not_among(t[schema.EVENT], events),
    }
    if strategy == "time":
        rules["no_timestamp"] = lambda t: pc.is_null(t[schema.TIMESTAMP])
    if strategy == "column":
        rules["unknown_split"] = lambda t: pc.invert(
            pc.is_in(t[schema.SPLIT], pa.array(schema.SPLITS, pa.large_string()))
        )
    return rules


def _blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.or_kleene(pc.is_null(column), pc.equal(column, ""))


def _has_no_time(table: pa.Table) -> pa.ChunkedArray:
    return pc.and_(pc.is_null(table[schema.TIMESTAMP]), pc.is_null(table[schema.ORDER]))


def _not_among(column: pa.ChunkedArray, allowed: tuple[str, ...]) -> pa.ChunkedArray:
    known = pc.is_in(column, pa.array(allowed, pa.large_string()))
    return pc.and_(pc.is_valid(column), pc.invert(known))


def apply_rules(table: pa.Table, rules: dict[str, Rule]) -> tuple[pa.Table, pa.Table]:
    """Divide rows into (good, bad); bad rows gain a `reason` column. No row is lost."""
    first = np.full(len(table), len(rules))
    for number, rule in enumerate(rules.values()):
        broken = np.asarray(pc.fill_null(rule(table), False))
        first[broken & (first == len(rules))] = number
    names = np.array([*rules, ""], dtype=object)
    bad = table.filter(pa.array(first < len(rules)))
    reasons = pa.array(names[first[first < len(rules)]], pa.string())
    return table.filter(pa.array(first == len(rules))), bad.append_column(schema.REASON, reasons)


def check_items(table: pa.Table) -> tuple[pa.Table, pa.Table, int]:
    """Items sorted by id, the bad rows with reasons, and the number of exact duplicates dropped.

    Of two rows with one item_id and different content the smaller in column order is kept, so
    that the result does not depend on the order of the files.
    """
    rules: dict[str, Rule] = {"null_item_id": lambda t: _blank(t[schema.ITEM_ID])}
    good, bad = apply_rules(table, rules)
    unique = good.group_by(good.column_names, use_threads=False).aggregate([])
    unique = unique.sort_by([(name, "ascending") for name in table.column_names])
    ids = unique[schema.ITEM_ID].to_numpy(zero_copy_only=False)
    repeated = np.concatenate([[False], ids[1:] == ids[:-1]]) if len(ids) else np.zeros(0, bool)
    conflicts = unique.filter(pa.array(repeated))
    reasons = pa.array(["duplicate_item_id"] * len(conflicts), pa.string())
    bad = pa.concat_tables([bad, conflicts.append_column(schema.REASON, reasons)])
    return unique.filter(pa.array(~repeated)), bad, len(good) - len(unique)


def count_reasons(bad: pa.Table) -> dict[str, int]:
    """Bad rows by reason, most frequent first."""
    counts = pc.value_counts(bad[schema.REASON].combine_chunks()).to_pylist()
    return {c["values"]: c["counts"] for c in sorted(counts, key=lambda c: -c["counts"])}


def check_counts(table: str, counts: dict) -> None:
    """Hold that read = kept + quarantined + dropped, each counted on its own.

    Raises:
        RuntimeError: rows were lost or doubled on the way.
    """
    accounted = counts["kept"] + counts["quarantined"] + counts["dropped_duplicates"]
    if counts["read"] != accounted:
        raise RuntimeError(f"{table}: {counts['read']} rows read but {accounted} accounted for")


def check_share(table: str, counts: dict, max_share: float) -> None:
    """Refuse a table with too many bad rows.

    Raises:
        ValueError: names the reasons, their counts and what to do.
    """
    if counts["quarantined"] <= max_share * counts["read"] and counts["kept"]:
        return
    found = "; ".join(f"{r}: {n} rows ({RULE_ADVICE[r]})" for r, n in counts["reasons"].items())
    raise ValueError(
        f"{table}: {counts['quarantined']} of {counts['read']} rows are bad, more than the share "
        f"{max_share} that prepare.max_quarantine_share allows: {found}"
    )

"""`eval_rows.parquet`: the exact rows a benchmark scores, given by the data itself."""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys import schema
from recsys.data.privacy import pseudonymise
from recsys.data.sources import parquet_errors
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary
from recsys.storage import filesystem, has_file, retried

HISTORY_ITEM_IDS = "history_item_ids"
HISTORY_TIMESTAMPS = "history_timestamps"
HISTORY_VALUES = "history_values"


def find_eval_rows(data: str) -> str | None:
    """The URI of `eval_rows.parquet` under `data`, or None."""
    uri = f"{data.rstrip('/')}/eval_rows.parquet"
    return uri if has_file(uri) else None


def read_eval_rows(
    uri: str,
    vocabulary: ItemVocabulary,
    max_history: int,
    user_key: bytes | None = None,
    keep_values: bool = False,
) -> tuple[dict[str, pa.Table], pa.Table]:
    """Held-out rows by split, and the bad rows with the rule they broke.

    With a `user_key` users become pseudonyms. Values are kept where that is asked for.

    A row is bad if its target is not in the catalogue or its split is neither valid nor test.

    Columns user_id, history_item_ids and item_id; optionally split (else all rows are test),
    history_timestamps, history_values and value. Unknown items of a history are left out of it.

    Raises:
        ValueError: the file is not whole Parquet, a column is missing, or a history has more or
            fewer timestamps or values than items.
    """
    raw = _read(uri)
    if user_key is not None:
        place = raw.column_names.index(schema.USER_ID)
        named = pseudonymise(raw[schema.USER_ID], user_key)
        raw = raw.set_column(place, schema.USER_ID, named)
    targets = vocabulary.indexes_of(raw[schema.ITEM_ID].cast(pa.large_string()).to_pylist())
    known = targets != UNKNOWN
    placed = _has_split(raw)
    good = known & placed
    rows = _rows(raw.filter(pa.array(good)), targets[good], vocabulary, max_history, keep_values)
    bad = raw.filter(pa.array(~good))
    reasons = np.where(known, "unknown_split", "unknown_item")[~good]
    bad = bad.append_column(schema.RULE, pa.array(reasons.tolist(), pa.string()))
    return _by_split(rows, raw.filter(pa.array(good))), bad


def _has_split(raw: pa.Table) -> np.ndarray:
    if schema.SPLIT not in raw.column_names:
        return np.ones(len(raw), dtype=bool)
    parts = pa.array(schema.SPLITS[1:], raw[schema.SPLIT].type)
    return np.asarray(pc.is_in(raw[schema.SPLIT], parts))


def _read(uri: str) -> pa.Table:
    fs, path = filesystem(uri)
    with parquet_errors(uri):
        raw = retried(lambda: pq.read_table(path, filesystem=fs))
    for name in (schema.USER_ID, HISTORY_ITEM_IDS, schema.ITEM_ID):
        if name not in raw.column_names:
            raise ValueError(f"{uri}: column '{name}' is missing; has: {raw.column_names}")
    return raw


def _rows(
    raw: pa.Table,
    targets: np.ndarray,
    vocabulary: ItemVocabulary,
    max_history: int,
    keep_values: bool,
) -> pa.Table:
    histories = [h or [] for h in raw[HISTORY_ITEM_IDS].to_pylist()]
    times = _beside(histories, raw, HISTORY_TIMESTAMPS, schema.UNKNOWN_TIME)
    indexes = [vocabulary.indexes_of([str(i) for i in h]) for h in histories]
    known = [(i != UNKNOWN).nonzero()[0][-max_history:] for i in indexes]
    items = [i[k] for i, k in zip(indexes, known, strict=True)]
    seconds = [np.array(t, dtype=np.int64)[k] for t, k in zip(times, known, strict=True)]
    rows = {
        schema.USER_ID: raw[schema.USER_ID].cast(pa.large_string()),
        schema.ITEM_INDEXES: pa.array(items, pa.large_list(pa.int32())),
        schema.TIMESTAMPS: pa.array(seconds, pa.large_list(pa.int64())),
        schema.EVENTS: pa.array([np.zeros(len(i), np.int8) for i in items], _EVENT_LISTS),
        schema.TARGETS: pa.array(targets[:, None].tolist(), pa.large_list(pa.int32())),
    }
    if keep_values:
        values = _beside(histories, raw, HISTORY_VALUES, np.nan)
        kept = [np.array(v, np.float32)[k] for v, k in zip(values, known, strict=True)]
        rows[schema.VALUES] = pa.array(kept, _VALUE_LISTS)
        rows[schema.TARGET_VALUES] = pa.array(_target_values(raw)[:, None].tolist(), _VALUE_LISTS)
    return pa.table(rows)


_EVENT_LISTS, _VALUE_LISTS = pa.large_list(pa.int8()), pa.large_list(pa.float32())


def _beside(
    histories: list[list], raw: pa.Table, name: str, unknown: float
) -> list[list[float | None]]:
    """What a column says of each item of each history; `unknown` where there is no such column."""
    if name not in raw.column_names:
        return [[unknown] * len(history) for history in histories]
    found = [row or [] for row in raw[name].to_pylist()]
    if any(len(f) != len(h) for f, h in zip(found, histories, strict=True)):
        raise ValueError(f"eval_rows: {name} and {HISTORY_ITEM_IDS} differ in length")
    return found


def _target_values(raw: pa.Table) -> np.ndarray:
    if schema.VALUE not in raw.column_names:
        return np.full(len(raw), np.nan)
    return np.array(raw[schema.VALUE].to_pylist(), dtype=np.float64)  # None becomes NaN


def _by_split(rows: pa.Table, raw: pa.Table) -> dict[str, pa.Table]:
    if schema.SPLIT not in raw.column_names:
        return {"test": rows}
    parts = {
        part: rows.filter(pc.equal(raw[schema.SPLIT], part).combine_chunks())
        for part in schema.SPLITS[1:]
    }
    return {part: table for part, table in parts.items() if len(table)}

"""What searches showed and what was clicked: a log with a row for each item shown.

Columns: `request_id`, `query`, `item_id`, `position` from 1, and `clicked`, 0 or 1; perhaps also
`history`, a list of item ids, oldest first, which is read in the first row of a request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.data.sources import parquet_errors
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary
from recsys.index.lexical import MAX_QUERY_CHARS, plain_query
from recsys.ranker.click_model import PositionModel, fit_position_model
from recsys.storage import read_bytes

REQUEST, QUERY, POSITION, CLICKED = "request_id", "query", "position", "clicked"
COLUMNS = {
    REQUEST: pl.String,
    QUERY: pl.String,
    schema.ITEM_ID: pl.String,
    POSITION: pl.Int64,
    CLICKED: pl.Int64,
}
HISTORY, USED = "history", "used"
_INDEX, _RULE = "index", "rule"


@dataclass(frozen=True)
class ShownList:
    """One request: its text, (C,) item indexes, places from 1 and 0 or 1 for a click, and the items
    that its user's history held, oldest first."""

    query: str
    items: np.ndarray
    places: np.ndarray
    clicked: np.ndarray
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShownLog:
    """Requests in the order of the log. `rows` counts its rows used and, by reason, left out."""

    lists: list[ShownList]
    rows: dict[str, int]


def read_shown(uri: str, items: pa.Table) -> ShownLog:
    """The requests of a Parquet file, with indexes of the items.

    Raises:
        ValueError: the file is not Parquet, lacks a column, holds one of another type, or not a row
            of it can be used.
    """
    raw = _read(uri).with_columns(pl.Series(_INDEX, _indexes(uri, items)))
    told = raw.with_columns(pl.coalesce(*_rules(), pl.lit(USED)).alias(_RULE))
    rows = dict(sorted(Counter(told[_RULE]).items()))
    good = told.filter(pl.col(_RULE) == USED)
    if good.is_empty():
        raise ValueError(f"{uri} has no row that can be used: {rows}")
    parts = good.partition_by(REQUEST, maintain_order=True)
    return ShownLog([_list_of(part) for part in parts], rows)


def fit_clicks(lists: Sequence[ShownList]) -> PositionModel:
    """The click model of requests; a pair is a text and an item.

    Raises:
        ValueError: see `fit_position_model`.
    """
    numbers: dict[tuple[str, int], int] = {}
    pairs = [
        numbers.setdefault((request.query, item), len(numbers))
        for request in lists
        for item in request.items.tolist()
    ]
    places = np.concatenate([request.places for request in lists])
    clicked = np.concatenate([request.clicked for request in lists])
    return fit_position_model(np.array(pairs), places, clicked)


def _read(uri: str) -> pl.DataFrame:
    content = read_bytes(uri)
    with parquet_errors(uri):
        table = pq.read_table(pa.BufferReader(content))
    if lacking := sorted(set(COLUMNS) - set(table.column_names)):
        raise ValueError(f"{uri} has no column {', '.join(lacking)}: it needs {', '.join(COLUMNS)}")
    if HISTORY not in table.column_names:
        table = table.append_column(HISTORY, pa.nulls(len(table), pa.list_(pa.string())))
    frame = pl.DataFrame(pl.from_arrow(table.select([*COLUMNS, HISTORY])))
    try:
        return frame.cast({**COLUMNS, HISTORY: pl.List(pl.String)})  # pyright: ignore
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{uri}: a column is of another type: {error}") from error


def _indexes(uri: str, items: pa.Table) -> np.ndarray:
    ids = _read(uri)[schema.ITEM_ID].fill_null("").to_list()
    indexes = ItemVocabulary(items[schema.ITEM_ID]).indexes_of(ids)
    removed = items[schema.REMOVED].to_numpy(zero_copy_only=False)
    known = indexes != UNKNOWN
    return np.where(known & ~removed[np.where(known, indexes, 0)], indexes, UNKNOWN)


def _rules() -> list[pl.Expr]:
    """What is wrong with a row, by reason; the first that holds is the row's."""
    texts = pl.col(QUERY).fill_null("")
    rules = {
        "null_request_id": pl.col(REQUEST).fill_null("") == "",
        "empty_query": texts.str.strip_chars() == "",
        "long_query": texts.str.len_chars() > MAX_QUERY_CHARS,
        "unknown_or_removed_item": pl.col(_INDEX) == UNKNOWN,
        "bad_position": pl.col(POSITION).fill_null(0) < 1,
        "bad_clicked": ~pl.col(CLICKED).is_in([0, 1]).fill_null(False),
        "duplicate": ~pl.struct(REQUEST, schema.ITEM_ID).is_first_distinct(),
    }
    return [pl.when(rule).then(pl.lit(name)) for name, rule in rules.items()]


def _list_of(rows: pl.DataFrame) -> ShownList:
    history = rows[HISTORY][0]
    return ShownList(
        plain_query(rows[QUERY][0]),
        rows[_INDEX].to_numpy().astype(np.int64),
        rows[POSITION].to_numpy(),
        rows[CLICKED].to_numpy(),
        () if history is None else tuple(history.drop_nulls().to_list()),
    )

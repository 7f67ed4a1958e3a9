"""What users of one country, device or other column take most: answers for users without history.

Shapes: N items, U users, W training windows, E events, K items of a segment.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys import schema
from recsys.artifact import Artifact

SEGMENTS = "segment_popularity.parquet"
MAX_ITEMS = 500
"""Items kept of each segment; behind them come the popular ones of all users."""
THREADS = 8
"""Files read at once."""
NOBODY = -1
COLUMN, VALUE, EVENTS, ITEMS, COUNTS = "column", "value", "events", "items", "counts"
SCHEMA = pa.schema(
    {
        COLUMN: pa.large_string(),
        VALUE: pa.large_string(),
        EVENTS: pa.int64(),
        ITEMS: pa.large_list(pa.int32()),
        COUNTS: pa.large_list(pa.int64()),
    }
)


@dataclass(frozen=True, slots=True)
class Segment:
    """The most popular items (K,) of some users, most first, and their shares of `events`."""

    name: str
    events: int
    items: torch.Tensor
    shares: torch.Tensor


class Segments:
    """The segments of an index by column and value."""

    def __init__(self, table: pa.Table) -> None:
        self._known = {(row[COLUMN], row[VALUE]): _segment(row) for row in table.to_pylist()}

    @classmethod
    def none(cls) -> Self:
        """Of an index without users."""
        return cls(SCHEMA.empty_table())

    def find(self, context: Mapping[str, str]) -> Segment | None:
        """The most specific segment that the context names: the one with the fewest events.

        None where it names none, such as a value of too few users.
        """
        named = [self._known[pair] for pair in context.items() if pair in self._known]
        return min(named, key=lambda s: (s.events, s.name), default=None)


def count_segments(
    dataset: Artifact, users: pa.Table, removed_N: np.ndarray, min_users: int
) -> pa.Table:
    """A row for each value of each column of the `users` that at least `min_users` users have.

    Counted are the training windows' events, each once. A user with a single training event has no
    window. Values that are null or "" make no segment, and removed items are left out.
    """
    names = [name for name in users.column_names if name != schema.USER_ID]
    columns = [_encoded(users[name]) for name in names]
    ids = users[schema.USER_ID].combine_chunks()
    size = len(removed_N)

    def count(name: str) -> list[tuple[np.ndarray, ...]]:
        windows = dataset.read_table(name)
        return _count(windows, ids, [codes for codes, _ in columns], size)

    with ThreadPoolExecutor(THREADS) as pool:
        files = list(pool.map(count, dataset.names("train/")))
    found = [SCHEMA.empty_table()]
    for at, (name, (_, values)) in enumerate(zip(names, columns, strict=True)):
        counted = _Counted.of([file[at] for file in files], len(values), size)
        rows = [
            counted.row(name, value, code, removed_N)
            for code, value in enumerate(values)
            if counted.users_V[code] >= min_users
        ]
        found.append(pa.Table.from_pylist(rows, SCHEMA))
    return pa.concat_tables(found)


@dataclass(frozen=True, slots=True)
class _Counted:
    """Of one column: users of each value, and each pair of value and item with its events.

    `items` and `events` of value v lie from `starts`[v] to `starts`[v + 1].
    """

    users_V: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    events: np.ndarray

    @classmethod
    def of(cls, parts: list[tuple[np.ndarray, ...]], num_values: int, num_items: int) -> Self:
        empty = np.empty(0, np.int64)
        users, keys, counts = (
            np.concatenate([empty, *columns])
            for columns in (zip(*parts, strict=True) if parts else [(empty,)] * 3)
        )
        distinct, inverse = np.unique(keys, return_inverse=True)
        events = np.bincount(inverse, counts, len(distinct)).astype(np.int64)
        starts = np.searchsorted(distinct, np.arange(num_values + 1) * num_items)
        users_V = np.bincount(users, minlength=num_values)
        return cls(users_V, starts, distinct % max(1, num_items), events)

    def row(self, column: str, value: str, code: int, removed_N: np.ndarray) -> dict:
        span = slice(self.starts[code], self.starts[code + 1])
        items, events = self.items[span], self.events[span]
        order = np.argsort(-events, kind="stable")
        best = order[~removed_N[items[order]]][:MAX_ITEMS]
        return {
            COLUMN: column,
            VALUE: value,
            EVENTS: int(events.sum()),
            ITEMS: items[best],
            COUNTS: events[best],
        }


def _count(
    windows: pa.Table, ids: pa.Array, columns: list[np.ndarray], num_items: int
) -> list[tuple[np.ndarray, ...]]:
    """For each column the value of each user with windows, and pairs of value and item as value *
    N + item, with their events. A file holds all windows of its users."""
    users = windows[schema.USER_ID].cast(ids.type).combine_chunks()
    lists = windows[schema.ITEM_INDEXES].combine_chunks()
    items_E = lists.flatten().to_numpy().astype(np.int64)
    once_E = _once(windows, users)
    users_W = pc.fill_null(pc.index_in(users, ids), NOBODY).to_numpy()
    users_E = np.repeat(users_W, pc.list_value_length(lists).to_numpy())
    distinct = np.unique(users_W[users_W != NOBODY])
    found: list[tuple[np.ndarray, ...]] = []
    for codes_U in columns:
        codes = codes_U[distinct]
        codes_E = np.where(users_E == NOBODY, NOBODY, codes_U[users_E])
        counted_E = once_E & (codes_E != NOBODY)
        keys = codes_E[counted_E] * num_items + items_E[counted_E]
        found.append((codes[codes != NOBODY], *np.unique(keys, return_counts=True)))
    return found


def _once(windows: pa.Table, users: pa.Array) -> np.ndarray:
    """(E,) mask of all but the first event of a window that goes on where the one before ended."""
    lengths_W = pc.list_value_length(windows[schema.ITEM_INDEXES]).to_numpy()
    starts_W = np.cumsum(lengths_W) - lengths_W
    goes_on_W = pc.equal(users[1:], users[:-1]).to_numpy(zero_copy_only=False)
    for name in (schema.ITEM_INDEXES, schema.TIMESTAMPS, schema.EVENTS):
        values_E = windows[name].combine_chunks().flatten().to_numpy()
        goes_on_W = goes_on_W & (values_E[starts_W[1:]] == values_E[starts_W[1:] - 1])
    once_E = np.ones(lengths_W.sum(), dtype=bool)
    once_E[starts_W[1:][goes_on_W]] = False
    return once_E


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """(U,) codes, and the value of each; `NOBODY` where there is none."""
    texts = column.cast(pa.large_string()).combine_chunks()
    known = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
    encoded = known.dictionary_encode()
    return pc.fill_null(encoded.indices, NOBODY).to_numpy(), encoded.dictionary.to_pylist()


def _segment(row: dict) -> Segment:
    shares = torch.tensor(row[COUNTS], dtype=torch.float64) / max(1, row[EVENTS])
    items = torch.tensor(row[ITEMS], dtype=torch.int64)
    return Segment(f"{row[COLUMN]}={row[VALUE]}", row[EVENTS], items, shares)

"""Events made by hand, and sequences of them in an order that is easy to compare."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recsys.data.history import Sequences, sort_events, to_sequences

COLUMNS = {
    "user_id": pa.large_string(),
    "order": pa.int64(),
    "timestamp": pa.int64(),
    "item_index": pa.int32(),
    "event_index": pa.int8(),
    "split_index": pa.int8(),
    "value": pa.float32(),
}
USERS = ("u", "v", "用户")


def event(user: str, item: int, time: int = 0, **more: float) -> dict:
    row = dict.fromkeys(COLUMNS, 0) | {"user_id": user, "item_index": item, "timestamp": time}
    return row | more


def events_of(rows: list[dict]) -> pa.Table:
    return sort_events(pa.Table.from_pylist(rows, pa.schema(COLUMNS)))


def sequences_of(rows: list[dict], session_gap_s: float | None = None) -> Sequences:
    """The sequences of these rows in the order of their users' names, for easy comparing."""
    found = to_sequences(events_of(rows), session_gap_s)
    order = np.argsort(np.array(found.user_ids.tolist(), dtype=object), kind="stable")
    places = [np.arange(found.offsets[n], found.offsets[n + 1]) for n in order]
    place = np.concatenate([np.empty(0, dtype=np.int64), *places])
    columns = (found.item_indexes, found.timestamps, found.events, found.split)
    return Sequences(
        found.user_ids.take(pa.array(order, pa.int64())),
        np.concatenate([[0], np.cumsum(found.lengths[order])]),
        *(column[place] for column in columns),
    )


def of_lengths(lengths: list[int]) -> Sequences:
    """Users of so many events; every event has its own item, which is its place in the whole."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    return sequences_of([event(f"u{user:03}", n, n) for n, user in enumerate(users)])


def by_user(sequences: Sequences, column: np.ndarray) -> dict[str, list[int]]:
    parts = np.split(column, sequences.offsets[1:-1])
    return {
        user: part.tolist() for user, part in zip(sequences.user_ids.tolist(), parts, strict=True)
    }


def rows_of(table: pa.Table, *names: str) -> list[tuple]:
    columns = (table[name].to_pylist() for name in ("user_id", *names))
    return list(zip(*columns, strict=True))

"""Interactions of whole users -> sorted, distinct events -> one sequence a user or a session.

Everything works on flat columns: events sorted by user, then time, beside `offsets` (S + 1,) that
say where each sequence begins. Nothing loops over users, so a user with a million events costs a
million times one event.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema

EVENT_INDEX = "event_index"
SPLIT_INDEX = "split_index"
COPIES = "copies"
TIE_COLUMNS = (schema.ITEM_INDEX, EVENT_INDEX, SPLIT_INDEX, schema.VALUE)
NO_VALUE = np.finfo(np.float32).min
"""Stands for a value that a row does not have, so that equal rows compare equal."""


@dataclass(frozen=True)
class Sequences:
    """Events, flat: `offsets[s]:offsets[s + 1]` are the events of sequence s, oldest first.

    `user_ids[s]` is whose sequence it is; a user has several where histories are cut into sessions.
    `split` is each event's position in `schema.SPLITS`, where the data says one. `values` are
    float32, NaN where unknown; None where they are not kept.
    """

    user_ids: pa.Array
    offsets: np.ndarray
    item_indexes: np.ndarray
    timestamps: np.ndarray
    events: np.ndarray
    split: np.ndarray
    values: np.ndarray | None = None

    @property
    def num_events(self) -> int:
        """Events of all sequences."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Events of each sequence, (S,)."""
        return np.diff(self.offsets)

    def positions(self) -> np.ndarray:
        """Each event's position in its sequence, from 0."""
        return np.arange(self.num_events) - np.repeat(self.offsets[:-1], self.lengths)

    def users(self) -> np.ndarray:
        """Each event's sequence, as a position in `user_ids`."""
        return np.repeat(np.arange(len(self.user_ids)), self.lengths)

    def select(self, mask: np.ndarray) -> Sequences:
        """The events where `mask` holds; sequences stay, even without events."""
        kept = np.concatenate([[0], np.cumsum(mask)])
        columns = (self.item_indexes, self.timestamps, self.events, self.split)
        some = (column[mask] for column in columns)
        values = None if self.values is None else self.values[mask]
        return Sequences(self.user_ids, kept[self.offsets], *some, values=values)


def sort_events(events: pa.Table) -> pa.Table:
    """Whole users' events sorted, each once; `copies` says how often it was there.

    Users stand in the order of their ids' hashes. A user's events are sorted by `order` where the
    row has one, else by timestamp; ties by the other columns, so that the result does not depend
    on the order of the rows.
    """
    ids = events[schema.USER_ID].combine_chunks()
    users = _hashes(ids)
    order, fresh = _sort(events, users)
    found = _taken(events, order, fresh)
    mixed = len(user_starts(found)) - 1 > np.count_nonzero(np.diff(users[order]))
    if mixed or _takes_one_user_for_another(ids, order, fresh):
        # Two users have one hash: once in 10^7 partitions of a million users.
        order, fresh = _sort(events, _alphabetic_ranks(ids))
        found = _taken(events, order, fresh)
    return found


def _takes_one_user_for_another(ids: pa.Array, order: np.ndarray, fresh: np.ndarray) -> bool:
    """Whether an event counts as a duplicate of somebody else's."""
    doubles = np.flatnonzero(~fresh)
    here, before = ids.take(pa.array(order[doubles])), ids.take(pa.array(order[doubles - 1]))
    return pc.any(pc.not_equal(here, before)).as_py() or False


def _taken(events: pa.Table, order: np.ndarray, fresh: np.ndarray) -> pa.Table:
    names = [name for name in events.column_names if name != COPIES]
    columns = {name: _take(events[name], order[fresh]) for name in names}
    return pa.table(columns | {COPIES: pa.array(_copies(events, order, fresh))})


def _copies(events: pa.Table, order: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """How many rows each distinct one stands for, int32."""
    starts = np.flatnonzero(fresh)
    if COPIES not in events.column_names or not len(starts):
        return np.diff(np.append(starts, len(order))).astype(np.int32)
    return np.add.reduceat(events[COPIES].to_numpy()[order], starts).astype(np.int32)


def _sort(events: pa.Table, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row order, and which rows in that order differ from the one before."""
    when = [_keys(events, n) for n in (schema.ORDER, schema.TIMESTAMP) if n in events.column_names]
    ties = [_keys(events, name) for name in TIE_COLUMNS if name in events.column_names]
    order = argsort_by([users, *when, *ties])
    return order, _differs_from_previous([users, *when], ties, order)


def _hashes(ids: pa.Array) -> np.ndarray:
    return pl.Series(ids).hash(seed=0).to_numpy()


def _alphabetic_ranks(ids: pa.Array) -> np.ndarray:
    encoded = ids.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    return order.argsort()[encoded.indices.to_numpy()]


def _keys(events: pa.Table, name: str) -> np.ndarray:
    values = events[name].to_numpy()
    # Bits of a float have a total order of their own, which is all that a tie needs.
    return (values + np.float32(0)).view(np.int32) if values.dtype == np.float32 else values


def argsort_by(keys: list[np.ndarray]) -> np.ndarray:
    """The order of rows by integer keys, the first key first.

    As many leading keys as fit are packed into 64 bits and sorted as one number, which numpy does
    about ten times as fast as `lexsort`; only rows that tie there are sorted by the other keys.
    """
    packed, used = _pack(keys)
    order = np.argsort(packed)
    if used == len(keys):
        return order
    placed = packed[order]
    same = placed[1:] == placed[:-1]
    if not same.any():
        return order
    tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    starts = tied & ~np.concatenate([[False], same])
    rows = order[tied]
    group = np.cumsum(starts[tied])
    order[tied] = rows[argsort_by([group, *(key[rows] for key in keys[used:])])]
    return order


def _pack(keys: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """The leading keys as one uint64, and how many of them: two, or the first if it is wide."""
    packed = np.zeros(len(keys[0]), dtype=np.uint64)
    free = 64
    for number, key in enumerate(keys):
        shifted, bits = _from_zero(key)
        if bits > free and number == 1 and free >= 32:
            shifted, bits = _from_zero(np.unique(key, return_inverse=True)[1])
        if bits > free:
            return packed, number
        packed = shifted if bits == 64 else (packed << np.uint64(bits)) | shifted
        free -= bits
    return packed, len(keys)


def _from_zero(key: np.ndarray) -> tuple[np.ndarray, int]:
    """The key less its minimum, and the bits that takes."""
    low, high = (int(key.min()), int(key.max())) if len(key) else (0, 0)
    return key.astype(np.uint64) - np.uint64(low % (1 << 64)), (high - low).bit_length()


def _differs_from_previous(
    main: list[np.ndarray], ties: list[np.ndarray], order: np.ndarray
) -> np.ndarray:
    differs = np.ones(len(order), dtype=bool)
    differs[1:] = False
    for key in main:
        placed = key[order]
        differs[1:] |= placed[1:] != placed[:-1]
    same = np.flatnonzero(~differs)
    for key in ties:
        differs[same] |= key[order[same]] != key[order[same - 1]]
    return differs


def _take(column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return pa.array(column.to_numpy()[rows])
    return column.combine_chunks().take(pa.array(rows))


def user_starts(events: pa.Table) -> np.ndarray:
    """Where each user begins in sorted events, (U,)."""
    ids = events[schema.USER_ID].combine_chunks()
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def to_sequences(
    events: pa.Table, session_gap_s: float | None = None, keep_values: bool = False
) -> Sequences:
    """Sorted events as sequences: one a user, or one a session.

    A session ends where the next event comes more than `session_gap_s` seconds later. Values are
    kept where that is asked for and the events have some.
    """
    starts = user_starts(events)
    timestamps = events[schema.TIMESTAMP].to_numpy()
    if session_gap_s is not None:
        pauses = np.flatnonzero(np.diff(timestamps) > session_gap_s) + 1
        starts = np.union1d(starts, pauses)
    return Sequences(
        events[schema.USER_ID].combine_chunks().take(pa.array(starts)),
        np.append(starts, len(events)),
        events[schema.ITEM_INDEX].to_numpy(),
        timestamps,
        events[EVENT_INDEX].to_numpy(),
        _split_of(events),
        _values_of(events) if keep_values and schema.VALUE in events.column_names else None,
    )


def _values_of(events: pa.Table) -> np.ndarray:
    values = events[schema.VALUE].to_numpy()
    return np.where(values == NO_VALUE, np.float32(np.nan), values)


def _split_of(events: pa.Table) -> np.ndarray:
    if SPLIT_INDEX in events.column_names:
        return events[SPLIT_INDEX].to_numpy()
    return np.zeros(len(events), dtype=np.int8)


def busiest_days(events: pa.Table) -> np.ndarray:
    """Events on the busiest day (UTC) of each event's user, (E,); 0 where times are unknown."""
    counts = np.zeros(len(events), dtype=np.int64)
    timestamps = events[schema.TIMESTAMP].to_numpy()
    starts = user_starts(events)
    users = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(events))))
    known = timestamps >= 0
    if not known.any():
        return counts
    days = timestamps[known] // schema.SECONDS_A_DAY
    keys = users[known] * np.int64(days.max() + 1) + days
    _, inverse, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    busiest = np.zeros(len(starts), dtype=np.int64)
    np.maximum.at(busiest, users[known], sizes[inverse])
    return busiest[users]

"""Interactions of many users -> one sorted sequence a user.

Everything here works on the flat columns of whole users: arrays of events sorted by user, then
time, beside `offsets` (U + 1,) that say where each user begins.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema

EVENT_INDEX = "event_index"
SPLIT_INDEX = "split_index"


@dataclass(frozen=True)
class Sequences:
    """Users' events, flat: `offsets[u]:offsets[u + 1]` are the events of `user_ids[u]`.

    `split` is each event's position in `schema.SPLITS`, where the data says one.
    """

    user_ids: pa.Array
    offsets: np.ndarray
    item_indexes: np.ndarray
    timestamps: np.ndarray
    events: np.ndarray
    split: np.ndarray

    @property
    def num_events(self) -> int:
        """Events of all users."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Events of each user, (U,)."""
        return np.diff(self.offsets)

    def positions(self) -> np.ndarray:
        """Each event's position in its user's sequence, from 0."""
        return np.arange(self.num_events) - np.repeat(self.offsets[:-1], self.lengths)

    def users(self) -> np.ndarray:
        """Each event's user, as a position in `user_ids`."""
        return np.repeat(np.arange(len(self.user_ids)), self.lengths)

    def select(self, mask: np.ndarray) -> Sequences:
        """The events where `mask` holds; users stay, even without events."""
        kept = np.bincount(self.users()[mask], minlength=len(self.user_ids))
        offsets = np.concatenate([[0], np.cumsum(kept)])
        columns = (self.item_indexes, self.timestamps, self.events, self.split)
        return Sequences(self.user_ids, offsets, *(column[mask] for column in columns))


def build_sequences(events: pa.Table) -> tuple[Sequences, int]:
    """Sort whole users' events and drop exact duplicates; returns the number dropped.

    Events are sorted by `order` where the row has one, else by timestamp; ties by the other
    columns, so that the result does not depend on the order of the rows.
    """
    user_ids, users = _user_codes(events[schema.USER_ID])
    keys = _sort_keys(events)
    row_order = np.lexsort([*reversed(keys), users])
    sorted_keys = [users[row_order], *(key[row_order] for key in keys)]
    fresh = _differs_from_previous(sorted_keys)
    rows = row_order[fresh]
    counts = np.bincount(users[rows], minlength=len(user_ids))
    sequences = Sequences(
        user_ids,
        np.concatenate([[0], np.cumsum(counts)]),
        _numpy(events, schema.ITEM_INDEX)[rows],
        _numpy(events, schema.TIMESTAMP)[rows],
        _numpy(events, EVENT_INDEX)[rows],
        _numpy(events, SPLIT_INDEX)[rows],
    )
    return sequences, len(events) - len(rows)


def _user_codes(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    return encoded.dictionary.take(order), rank[encoded.indices.to_numpy()]


def _sort_keys(events: pa.Table) -> list[np.ndarray]:
    names = (
        schema.ORDER,
        schema.TIMESTAMP,
        schema.ITEM_INDEX,
        EVENT_INDEX,
        SPLIT_INDEX,
        schema.VALUE,
    )
    return [_numpy(events, name) for name in names]


def _numpy(events: pa.Table, name: str) -> np.ndarray:
    return events[name].to_numpy()


def _differs_from_previous(keys: list[np.ndarray]) -> np.ndarray:
    differs = np.zeros(len(keys[0]), dtype=bool)
    differs[:1] = True
    for key in keys:
        differs[1:] |= key[1:] != key[:-1]
    return differs

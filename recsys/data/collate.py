"""Rows -> Batch of tensors, the same for training, evaluation and serving.

Histories are taken as one flat run of events beside their lengths, so that padding is a few array
operations a batch, whatever its number of rows.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys import schema
from recsys.artifact import Artifact
from recsys.schema import NO_TARGET, UNKNOWN_TIME, Batch, History

COLUMNS = (schema.ITEM_INDEXES, schema.TIMESTAMPS, schema.EVENTS)


def read_rows(dataset: Artifact, part: str) -> pa.Table:
    """All rows of one part (train, valid, test) of a dataset, in file order.

    Raises:
        ValueError: the part has no rows.
    """
    names = dataset.names(f"{part}/")
    if not names:
        raise ValueError(
            f"{dataset.uri} has no '{part}' rows: check prepare.split against the data's dates"
        )
    return pa.concat_tables([dataset.read_table(name) for name in names]).combine_chunks()


def histories_of(rows: pa.Table) -> list[History]:
    """The histories of dataset rows, with values where they have some."""
    names = COLUMNS if schema.VALUES not in rows.column_names else (*COLUMNS, schema.VALUES)
    return [History(*parts) for parts in zip(*(_split(rows[n]) for n in names), strict=True)]


def targets_of(rows: pa.Table) -> list[np.ndarray]:
    """The distinct relevant item indexes of each held-out row."""
    return _split(rows[schema.TARGETS])


def target_values_of(rows: pa.Table) -> list[np.ndarray] | None:
    """The values of `targets_of`, NaN where unknown; None where the dataset keeps none."""
    if schema.TARGET_VALUES not in rows.column_names:
        return None
    return _split(rows[schema.TARGET_VALUES])


def _split(column: pa.ChunkedArray) -> list[np.ndarray]:
    """The lists of a column as arrays."""
    lengths, values = _flat(column)
    ends = np.cumsum(lengths)
    bounds = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    return [values[start:end] for start, end in bounds]


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The length of each list of a column, and the values of all."""
    lists = column.combine_chunks()
    return pc.list_value_length(lists).to_numpy().astype(np.int64), lists.flatten().to_numpy()


@dataclass(frozen=True, slots=True)
class _Events:
    """The events of B histories one after another: `lengths` (B,), the others (E,).

    Values are there where all histories have some.
    """

    lengths: np.ndarray
    item_indexes: np.ndarray
    timestamps: np.ndarray
    events: np.ndarray
    values: np.ndarray | None = None

    @classmethod
    def of(cls, histories: Sequence[History] | pa.Table) -> Self:
        """Histories, or dataset rows."""
        if isinstance(histories, Sequence):
            valued = all(history.values is not None for history in histories)
            names = (*COLUMNS, schema.VALUES) if valued else COLUMNS
            columns = [np.concatenate([getattr(h, name) for h in histories]) for name in names]
            return cls(np.array([len(history) for history in histories]), *columns)
        valued = schema.VALUES in histories.column_names
        names = (*COLUMNS, schema.VALUES) if valued else COLUMNS
        lists = [_flat(histories[name]) for name in names]
        return cls(lists[0][0], *(values for _, values in lists))

    def select(self, mask: np.ndarray) -> _Events:
        """The events where `mask` holds; every history must keep one."""
        rows = np.repeat(np.arange(len(self.lengths)), self.lengths)
        lengths = np.bincount(rows[mask], minlength=len(self.lengths))
        assert lengths.all(), "a history without events"
        values = None if self.values is None else self.values[mask]
        return _Events(
            lengths, self.item_indexes[mask], self.timestamps[mask], self.events[mask], values
        )

    def from_start(self) -> np.ndarray:
        """(E,) each event's position in its history, from 0."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.arange(len(self.events)) - np.repeat(starts, self.lengths)

    def from_end(self) -> np.ndarray:
        """(E,) the number of events after each in its history."""
        return np.repeat(self.lengths, self.lengths) - 1 - self.from_start()


def collate_histories(histories: Sequence[History] | pa.Table, max_history: int) -> Batch:
    """A Batch without targets of the newest `max_history` events of each history.

    No history may be empty.
    """
    recent = _newest(histories, max_history)
    return _batch(recent, np.full(len(recent.events), NO_TARGET))


def collate_windows(
    windows: Sequence[History] | pa.Table, event_weights: np.ndarray | None = None
) -> Batch:
    """A Batch from training windows: each event but the last is to predict the next one.

    `event_weights` (number of events,) is the weight of a target of each event; None is 1 for all.
    """
    whole = _Events.of(windows)
    following = whole.select(whole.from_start() > 0)
    weights = None if event_weights is None else event_weights[following.events]
    given = whole.select(whole.from_end() > 0)
    return _batch(given, following.item_indexes, weights, following.values)


def collate_held_out(
    histories: Sequence[History],
    targets: Sequence[int],
    size: int,
    target_values: Sequence[float] | None = None,
) -> Batch:
    """A Batch in which only each history's last event has a target, and maybe its value."""
    pairs = list(zip(histories, targets, strict=True))
    recent = _newest([history for history, _ in pairs], size)
    following = np.full(len(recent.events), NO_TARGET)
    last = recent.from_end() == 0
    following[last] = [target for _, target in pairs]
    if target_values is None:
        return _batch(recent, following)
    values = np.full(len(recent.events), np.nan, dtype=np.float32)
    values[last] = target_values
    return _batch(recent, following, target_values=values)


def _newest(histories: Sequence[History] | pa.Table, size: int) -> _Events:
    whole = _Events.of(histories)
    return whole.select(whole.from_end() < size)


def _batch(
    events: _Events,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    target_values: np.ndarray | None = None,
) -> Batch:
    """Pad a target, its weight and its value for each event."""
    has_event = np.arange(events.lengths.max()) < events.lengths[:, None]

    def pad_float(values: np.ndarray | None, fill: float) -> torch.Tensor | None:
        return None if values is None else _pad(values, has_event, fill, np.float32)

    return Batch(
        item_indexes=_pad(events.item_indexes, has_event, 0),
        timestamps=_pad(events.timestamps, has_event, UNKNOWN_TIME),
        events=_pad(events.events, has_event, 0),
        lengths=torch.from_numpy(events.lengths),
        targets=_pad(targets, has_event, NO_TARGET),
        weights=pad_float(weights, 1),
        values=pad_float(events.values, np.nan),
        target_values=pad_float(target_values, np.nan),
    )


def _pad(
    values: np.ndarray, has_event: np.ndarray, fill: float, kind: type = np.int64
) -> torch.Tensor:
    """(B, H): the values in the places that have an event, row by row, and else `fill`."""
    padded = np.full(has_event.shape, fill, dtype=kind)
    padded[has_event] = values
    return torch.from_numpy(padded)

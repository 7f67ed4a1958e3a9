"""Rows -> Batch of tensors, the same for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from recsys import schema
from recsys.artifact import Artifact
from recsys.schema import NO_TARGET, UNKNOWN_TIME, Batch, History


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
    """The histories of dataset rows."""
    names = (schema.ITEM_INDEXES, schema.TIMESTAMPS, schema.EVENTS)
    columns = [_split_lists(rows[name]) for name in names]
    return [History(*parts) for parts in zip(*columns, strict=True)]


def targets_of(rows: pa.Table) -> list[np.ndarray]:
    """The distinct relevant item indexes of each held-out row."""
    return _split_lists(rows[schema.TARGETS])


def _split_lists(column: pa.ChunkedArray) -> list[np.ndarray]:
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    flat = lists.values.to_numpy()
    return [flat[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def collate_histories(histories: Sequence[History], max_history: int) -> Batch:
    """A Batch without targets of the newest `max_history` events of each history.

    No history may be empty.
    """
    recent = [history.last(max_history) for history in histories]
    return _batch(recent, [np.empty(0, dtype=np.int64)] * len(recent))


def collate_windows(windows: Sequence[History]) -> Batch:
    """A Batch from training windows: each event but the last is to predict the next one."""
    inputs = [History(w.item_indexes[:-1], w.timestamps[:-1], w.events[:-1]) for w in windows]
    return _batch(inputs, [w.item_indexes[1:] for w in windows])


def collate_held_out(histories: Sequence[History], targets: Sequence[int], size: int) -> Batch:
    """A Batch in which only each history's last event has a target."""
    recent = [history.last(size) for history in histories]
    last = [
        np.append(np.full(len(h) - 1, NO_TARGET), t) for h, t in zip(recent, targets, strict=True)
    ]
    return _batch(recent, last)


def _batch(histories: Sequence[History], targets: Sequence[np.ndarray]) -> Batch:
    assert all(len(history) for history in histories)
    size = max(len(history) for history in histories)
    return Batch(
        item_indexes=_pad([h.item_indexes for h in histories], size, 0),
        timestamps=_pad([h.timestamps for h in histories], size, UNKNOWN_TIME),
        events=_pad([h.events for h in histories], size, 0),
        lengths=torch.tensor([len(h) for h in histories]),
        targets=_pad(targets, size, NO_TARGET),
    )


def _pad(rows: Sequence[np.ndarray], size: int, fill: int) -> torch.Tensor:
    padded = np.full((len(rows), size), fill, dtype=np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)

"""What is trained on and what is held out: the only place a split is decided.

Train rows are windows of at most `max_history + 1` events in which every event but a user's first
is predicted exactly once. Held-out rows are a history and the items that followed it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys import schema
from recsys.config import SplitConfig
from recsys.data.history import Sequences

TRAIN, VALID, TEST = range(3)
SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class SplitPlan:
    """A split with its cuts resolved: events at or after a cut (Unix seconds) are held out."""

    strategy: str
    valid_from: int = 0
    test_from: int = 0


def plan_split(config: SplitConfig, last_timestamp: int) -> SplitPlan:
    """Resolve the cuts from the newest event of the data.

    Raises:
        ValueError: a time split of data without timestamps.
    """
    if config.strategy != "time":
        return SplitPlan(config.strategy)
    if last_timestamp < 0:
        raise ValueError("prepare.split.strategy 'time' needs timestamps; the data has none")
    test_from = last_timestamp + 1 - round(config.test_days * SECONDS_A_DAY)
    return SplitPlan("time", test_from - round(config.valid_days * SECONDS_A_DAY), test_from)


def assign_split(sequences: Sequences, plan: SplitPlan) -> np.ndarray:
    """TRAIN, VALID or TEST for each event.

    `leave_last_out` holds events out only for users with at least three.
    """
    if plan.strategy == "column":
        return sequences.split
    if plan.strategy == "time":
        return np.digitize(sequences.timestamps, [plan.valid_from, plan.test_from])
    lengths = np.repeat(sequences.lengths, sequences.lengths)
    from_end = lengths - 1 - sequences.positions()
    held_out = np.where(from_end == 0, TEST, np.where(from_end == 1, VALID, TRAIN))
    return np.where(lengths >= 3, held_out, TRAIN)


def train_windows(sequences: Sequences, split: np.ndarray, max_history: int) -> pa.Table:
    """The training windows: user_id, item_indexes, timestamps, events."""
    train = sequences.select(split == TRAIN)
    num_windows = np.maximum(0, -(-(train.lengths - 1) // max_history))
    users = np.repeat(np.arange(len(num_windows)), num_windows)
    number = np.arange(len(users)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
    starts = train.offsets[users] + number * max_history
    ends = np.minimum(starts + max_history + 1, train.offsets[users + 1])
    return _rows(train, users, starts, ends)


def held_out_rows(
    sequences: Sequences, split: np.ndarray, part: int, plan: SplitPlan, max_history: int
) -> pa.Table:
    """The rows to score for VALID or TEST: a history and its `targets`.

    For a time split one row a user: the targets are the distinct items of the window. Otherwise
    one row a held-out event, with that one target. A history holds everything that came before,
    at most `max_history` events, and is empty for a user who is new.
    """
    targets = np.flatnonzero(split == part)
    if plan.strategy == "time":
        earlier = sequences.select(split < part)
        return _window_rows(sequences, earlier, targets, max_history)
    return _event_rows(sequences, targets, max_history)


def _event_rows(sequences: Sequences, targets: np.ndarray, max_history: int) -> pa.Table:
    users = sequences.users()[targets]
    starts = np.maximum(sequences.offsets[users], targets - max_history)
    rows = _rows(sequences, users, starts, targets)
    ones = np.arange(len(targets) + 1)
    return _with_targets(rows, ones, sequences.item_indexes[targets])


def _window_rows(
    sequences: Sequences, earlier: Sequences, targets: np.ndarray, max_history: int
) -> pa.Table:
    users = np.unique(sequences.users()[targets])
    ends = earlier.offsets[users + 1]
    starts = np.maximum(earlier.offsets[users], ends - max_history)
    pairs = np.stack([sequences.users()[targets], sequences.item_indexes[targets]], axis=1)
    pairs = np.unique(pairs, axis=0)
    offsets = np.searchsorted(pairs[:, 0], users)
    offsets = np.append(offsets, len(pairs))
    return _with_targets(_rows(earlier, users, starts, ends), offsets, pairs[:, 1])


def _with_targets(rows: pa.Table, offsets: np.ndarray, items: np.ndarray) -> pa.Table:
    return rows.append_column(schema.TARGETS, _lists(offsets, items, pa.int32()))


def _rows(
    sequences: Sequences, users: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> pa.Table:
    flat, offsets = _ranges(starts, ends)
    return pa.table(
        {
            schema.USER_ID: sequences.user_ids.take(pa.array(users)),
            schema.ITEM_INDEXES: _lists(offsets, sequences.item_indexes[flat], pa.int32()),
            schema.TIMESTAMPS: _lists(offsets, sequences.timestamps[flat], pa.int64()),
            schema.EVENTS: _lists(offsets, sequences.events[flat], pa.int8()),
        }
    )


def _ranges(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of all ranges start..end one after another, and where each begins."""
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    flat = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    return flat, offsets


def _lists(offsets: np.ndarray, values: np.ndarray, kind: pa.DataType) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, kind))

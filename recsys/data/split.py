"""What is trained on and what is held out: the only place a split is decided.

Train rows are windows of at most `max_history + 1` events in which every event but a sequence's
first is predicted exactly once. Held-out rows are a history and the items that followed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from recsys import schema
from recsys.config import SplitConfig
from recsys.data.history import Sequences
from recsys.schema import SECONDS_A_DAY

BY_TIME = ("time", "ratio")
TRAIN, VALID, TEST = range(3)


@dataclass(frozen=True)
class SplitPlan:
    """A split with its cuts resolved: events at or after a cut (Unix seconds) are held out."""

    strategy: str
    valid_from: int = 0
    test_from: int = 0


def plan_split(config: SplitConfig, times: TimeCounts | None = None) -> SplitPlan:
    """Resolve the cuts; strategies that look at the time need the times of all events.

    Raises:
        ValueError: a split by time of data without timestamps.
    """
    if config.strategy not in BY_TIME:
        return SplitPlan(config.strategy)
    if times is None or not len(times.times):
        raise ValueError(
            f"prepare.split.strategy '{config.strategy}' needs timestamps; the data has none"
        )
    if config.strategy == "ratio":
        return SplitPlan("ratio", *(times.quantile(share) for share in _cut_shares(config)))
    test_from = int(times.times[-1]) + 1 - round(config.test_days * SECONDS_A_DAY)
    return SplitPlan("time", test_from - round(config.valid_days * SECONDS_A_DAY), test_from)


def _cut_shares(config: SplitConfig) -> list[float]:
    """The shares of all events that come before the validation and before the test cut."""
    return [config.ratio[0], config.ratio[0] + config.ratio[1]]


@dataclass(frozen=True)
class TimeCounts:
    """How many events there are at each time (Unix seconds, ascending)."""

    times: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, timestamps: np.ndarray) -> Self:
        """Counts of one block."""
        return cls(*np.unique(timestamps, return_counts=True))

    @classmethod
    def total(cls, parts: Sequence[TimeCounts]) -> Self:
        """Counts of several blocks together."""
        times = np.concatenate([np.empty(0, np.int64), *(part.times for part in parts)])
        counts = np.concatenate([np.empty(0, np.int64), *(part.counts for part in parts)])
        distinct, inverse = np.unique(times, return_inverse=True)
        return cls(distinct, np.bincount(inverse, counts, len(distinct)).astype(np.int64))

    def around(self, config: SplitConfig) -> np.ndarray:
        """Positions of the times between which, or at which, a cut of the split falls."""
        if config.strategy != "ratio":
            return np.arange(len(self.times))[-1:]
        first = np.array([self._position(share) for share in _cut_shares(config)])
        return np.unique(np.clip([first - 1, first], 0, max(0, len(self.times) - 1)))

    def quantile(self, share: float) -> int:
        """The first time that has at least this share of the events before it."""
        position = self._position(share)
        return int(self.times[position] if position < len(self.times) else self.times[-1] + 1)

    def _position(self, share: float) -> int:
        before = np.cumsum(self.counts) - self.counts
        # A part in 10^9 of slack for shares such as 0.7 + 0.1, which no float holds exactly.
        return int(np.searchsorted(before, share * self.counts.sum() * (1 - 1e-9)))


def assign_split(sequences: Sequences, plan: SplitPlan) -> np.ndarray:
    """TRAIN, VALID or TEST for each event.

    `leave_last_out` holds events out only for users with at least three.
    """
    if plan.strategy == "column":
        return sequences.split
    if plan.strategy in BY_TIME:
        return np.digitize(sequences.timestamps, [plan.valid_from, plan.test_from])
    lengths = np.repeat(sequences.lengths, sequences.lengths)
    from_end = lengths - 1 - sequences.positions()
    held_out = np.where(from_end == 0, TEST, np.where(from_end == 1, VALID, TRAIN))
    return np.where(lengths >= 3, held_out, TRAIN)


def train_windows(
    sequences: Sequences, split: np.ndarray, max_history: int, newest_only: bool = False
) -> pa.Table:
    """The training windows: user_id, item_indexes, timestamps, events, and values where kept.

    With `newest_only` a sequence longer than a window gives its newest window alone.
    """
    train = sequences.select(split == TRAIN)
    if newest_only:
        from_end = np.repeat(train.lengths, train.lengths) - train.positions()
        train = train.select(from_end <= max_history + 1)
    num_windows = np.maximum(0, -(-(train.lengths - 1) // max_history))
    users = np.repeat(np.arange(len(num_windows)), num_windows)
    number = np.arange(len(users)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
    starts = train.offsets[users] + number * max_history
    ends = np.minimum(starts + max_history + 1, train.offsets[users + 1])
    return _rows(train, users, starts, ends)


def count_targets(windows: pa.Table) -> int:
    """Events that training windows predict: all but the first of each."""
    lists = windows[schema.ITEM_INDEXES].combine_chunks()
    offsets = lists.offsets.to_numpy()
    return int(offsets[-1] - offsets[0]) - len(windows)


def held_out_rows(
    sequences: Sequences, split: np.ndarray, part: int, plan: SplitPlan, max_history: int
) -> pa.Table:
    """The rows to score for VALID or TEST: a history and its `targets`.

    For strategy `time` one row a user: the targets are the distinct items of the window. Otherwise
    one row a held-out event, with that one target. A history holds everything that came before,
    at most `max_history` events, and is empty for a user who is new. Where values are kept, the
    targets' stand in `target_values`; of an item that is there twice, the first one's.
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
    return _with_targets(rows, ones, sequences, targets)


def _window_rows(
    sequences: Sequences, earlier: Sequences, targets: np.ndarray, max_history: int
) -> pa.Table:
    users = np.unique(sequences.users()[targets])
    ends = earlier.offsets[users + 1]
    starts = np.maximum(earlier.offsets[users], ends - max_history)
    pairs = np.stack([sequences.users()[targets], sequences.item_indexes[targets]], axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    offsets = np.searchsorted(pairs[:, 0], users)
    offsets = np.append(offsets, len(pairs))
    rows = _rows(earlier, users, starts, ends)
    return _with_targets(rows, offsets, sequences, targets[first])


def _with_targets(
    rows: pa.Table, offsets: np.ndarray, sequences: Sequences, targets: np.ndarray
) -> pa.Table:
    """The rows with the events at these places as targets, cut at `offsets`."""
    items = _lists(offsets, sequences.item_indexes[targets], pa.int32())
    rows = rows.append_column(schema.TARGETS, items)
    if sequences.values is None:
        return rows
    values = _lists(offsets, sequences.values[targets], pa.float32())
    return rows.append_column(schema.TARGET_VALUES, values)


def _rows(
    sequences: Sequences, users: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> pa.Table:
    flat, offsets = _ranges(starts, ends)
    columns = {
        schema.USER_ID: sequences.user_ids.take(pa.array(users)),
        schema.ITEM_INDEXES: _lists(offsets, sequences.item_indexes[flat], pa.int32()),
        schema.TIMESTAMPS: _lists(offsets, sequences.timestamps[flat], pa.int64()),
        schema.EVENTS: _lists(offsets, sequences.events[flat], pa.int8()),
    }
    if sequences.values is not None:
        columns[schema.VALUES] = _lists(offsets, sequences.values[flat], pa.float32())
    return pa.table(columns)


def _ranges(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of all ranges start..end one after another, and where each begins."""
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    flat = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    return flat, offsets


def _lists(offsets: np.ndarray, values: np.ndarray, kind: pa.DataType) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, kind))

"""Where in the data a run stands, and the windows that follow.

An epoch is one fixed sequence of global batches, given by seed, epoch and batch size alone. The
ranks share out each, so that each window of an epoch is seen exactly once by any number of workers,
also after a restart.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.artifact import Artifact


@dataclass(frozen=True, slots=True)
class Cursor:
    """`windows` of epoch `epoch` are done, after `step` steps in all."""

    epoch: int = 0
    windows: int = 0
    step: int = 0

    def after(self, windows: int) -> Cursor:
        """The cursor after one more step over `windows` windows."""
        return Cursor(self.epoch, self.windows + windows, self.step + 1)

    def next_epoch(self) -> Cursor:
        """The cursor at the start of the next epoch."""
        return Cursor(self.epoch + 1, 0, self.step)


class TrainWindows:
    """The training windows of a dataset, in the order of each epoch.

    With `length_buckets` a batch holds windows of similar length, longest first, and the batches of
    a memoryful come in random order.
    """

    def __init__(
        self, dataset: Artifact, seed: int, shuffle_windows: int, length_buckets: bool
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._shuffle_windows = shuffle_windows
        self._length_buckets = length_buckets
        self._files = dataset.names("train/")
        self.num_windows: int = dataset.manifest.facts["rows"]["train"]

    def steps(self, batch_size: int) -> int:
        """Steps of an epoch; the last may be smaller."""
        return -(-self.num_windows // batch_size)

    def batches(self, cursor: Cursor, batch_size: int) -> Iterator[pa.Table]:
        """The global batches of the cursor's epoch, from the cursor on.

        The cursor stands between two batches of this size. Windows left of one memoryful go first
        into the next.
        """
        assert cursor.windows % batch_size == 0 or cursor.windows == self.num_windows, cursor
        skip = -(-cursor.windows // batch_size)
        random = np.random.default_rng([self._seed, cursor.epoch])
        rest: list[pa.Table] = []
        for tables in self._memoryfuls(random):
            left, fresh = sum(map(len, rest)), sum(map(len, tables))
            windows = pa.concat_tables([*rest, *tables]).combine_chunks()
            tables.clear()  # one copy of a memoryful is enough
            order = np.append(np.arange(left), left + random.permutation(fresh))
            whole = len(order) // batch_size * batch_size
            batches = self._grouped(windows, order[:whole], batch_size, random)
            for rows in batches[skip:]:
                yield windows.take(pa.array(rows))
            skip = max(0, skip - len(batches))
            rest = [windows.take(pa.array(self._sorted(windows, order[whole:])))]
            del windows  # before the next are read
        if rest and len(rest[0]) and not skip:
            yield rest[0]

    def _memoryfuls(self, random: np.random.Generator) -> Iterator[list[pa.Table]]:
        """The files in random order, as many together as `shuffle_windows` takes."""
        waiting: list[pa.Table] = []
        for position in random.permutation(len(self._files)):
            waiting.append(self._dataset.read_table(self._files[position]))
            if sum(map(len, waiting)) >= self._shuffle_windows:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _grouped(
        self, windows: pa.Table, order: np.ndarray, batch_size: int, random: np.random.Generator
    ) -> np.ndarray:
        """(number of batches, batch_size) rows."""
        batches = self._sorted(windows, order).reshape(-1, batch_size)
        return random.permutation(batches) if self._length_buckets else batches

    def _sorted(self, windows: pa.Table, rows: np.ndarray) -> np.ndarray:
        if not self._length_buckets:
            return rows
        lengths = pc.list_value_length(windows[schema.ITEM_INDEXES]).to_numpy()
        return rows[np.argsort(-lengths[rows], kind="stable")]


def rank_places(batch: pa.Table, rank: int, world_size: int) -> np.ndarray:
    """Where in a global batch the windows of this rank stand, the longest first; may be nowhere in
    an epoch's last batch.

    The longest go round first, there and back (0, 1, 1, 0, ...). Where the ranks divide the batch
    no rank gets more events than another by more than its longest window less its shortest.
    """
    lengths = pc.list_value_length(batch[schema.ITEM_INDEXES]).to_numpy()
    order = np.argsort(-lengths, kind="stable")
    rounds, seats = np.divmod(np.arange(len(order)), world_size)
    back = (rounds % 2 == 1) & (rounds < len(order) // world_size)
    return order[np.where(back, world_size - 1 - seats, seats) == rank]

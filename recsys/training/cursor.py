"""Where in the data a run stands, and the windows that follow.

An epoch is one fixed sequence of windows, given by the seed and the epoch alone. Step s takes the
next `global_batch_size` of them and rank r every `world_size`-th window of these, so that each
window of an epoch is seen exactly once by any number of workers, also after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

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
    """The training windows of a dataset, in the order of each epoch."""

    def __init__(self, dataset: Artifact, seed: int, shuffle_windows: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._shuffle_windows = shuffle_windows
        self._files = dataset.names("train/")
        self.num_windows: int = dataset.manifest.facts["rows"]["train"]

    def steps(self, batch_size: int) -> int:
        """Steps of an epoch; the last may be smaller."""
        return -(-self.num_windows // batch_size)

    def batches(self, cursor: Cursor, batch_size: int) -> Iterator[pa.Table]:
        """The global batches of the cursor's epoch, from the cursor on."""
        skip = cursor.windows
        rest: list[pa.Table] = []
        for table in self._shuffled(cursor.epoch):
            passed = min(skip, len(table))
            skip -= passed
            waiting = pa.concat_tables([*rest, table.slice(passed)])
            whole = len(waiting) // batch_size * batch_size
            for start in range(0, whole, batch_size):
                yield waiting.slice(start, batch_size)
            rest = [waiting.slice(whole)]
        if rest and len(rest[0]):
            yield rest[0]

    def _shuffled(self, epoch: int) -> Iterator[pa.Table]:
        """The epoch's windows: files in random order, shuffled together a memoryful at a time."""
        random = np.random.default_rng([self._seed, epoch])
        waiting: list[pa.Table] = []
        for position in random.permutation(len(self._files)):
            waiting.append(self._dataset.read_table(self._files[position]))
            if sum(map(len, waiting)) >= self._shuffle_windows:
                yield _permuted(waiting, random)
                waiting = []
        if waiting:
            yield _permuted(waiting, random)


def _permuted(tables: list[pa.Table], random: np.random.Generator) -> pa.Table:
    table = pa.concat_tables(tables)
    return table.take(pa.array(random.permutation(len(table)))).combine_chunks()


def rank_rows(batch: pa.Table, rank: int, world_size: int) -> pa.Table:
    """This rank's share of a global batch; may be empty in an epoch's last batch."""
    return batch.take(pa.array(np.arange(rank, len(batch), world_size)))

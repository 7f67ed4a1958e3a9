"""One rank's batches, made ahead of the steps on a thread of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import pyarrow as pa

from recsys import schema
from recsys.data.augment import Augmenter
from recsys.data.collate import collate_windows, histories_of
from recsys.schema import NO_TARGET, UNKNOWN_TIME, Batch
from recsys.training.cursor import Cursor, rank_places

AHEAD = 4
"""Batches held ready."""
TIMEOUT_S = 1_800.0
"""Longest wait for a batch: a memoryful of windows may have to be read and shuffled for it."""
NOBODY = pa.table(
    {
        schema.ITEM_INDEXES: pa.array([[0, 0]], pa.large_list(pa.int32())),
        schema.TIMESTAMPS: pa.array([[UNKNOWN_TIME] * 2], pa.large_list(pa.int64())),
        schema.EVENTS: pa.array([[0, 0]], pa.large_list(pa.int8())),
    }
)
"""A window of nobody's, where a step has no other."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A rank's share of a global batch of `num_windows` windows."""

    batch: Batch
    num_windows: int


class Windows(Protocol):
    """Where batches come from: every window once an epoch, or users who are drawn."""

    def steps(self, batch_size: int) -> int:
        """Steps of an epoch."""
        ...

    def batches(self, cursor: Cursor, batch_size: int) -> Iterator[pa.Table]:
        """The global batches that are left of the cursor's epoch."""
        ...


@dataclass(frozen=True, slots=True)
class RankBatches:
    """How one rank makes its batches.

    `event_weights` are the weights of targets by event; without an `augmenter` windows stay as
    they are.
    """

    windows: Windows
    batch_size: int
    rank: int
    world_size: int
    event_weights: np.ndarray | None = None
    augmenter: Augmenter | None = None

    def epochs(self, cursor: Cursor, num_epochs: int) -> Iterator[Ready | None]:
        """The batches from the cursor on until `num_epochs` are done; None ends an epoch."""
        while cursor.epoch < num_epochs:
            for windows in self.windows.batches(cursor, self.batch_size):
                yield Ready(self.share(windows, cursor.step), len(windows))
                cursor = cursor.after(len(windows))
            yield None
            cursor = cursor.next_epoch()

    def share(self, windows: pa.Table, step: int) -> Batch:
        """This rank's share of a global batch."""
        places = rank_places(windows, self.rank, self.world_size)
        if not len(places):
            return self._without_targets(windows.slice(0, 1) if len(windows) else NOBODY)
        mine = windows.take(pa.array(places))
        if self.augmenter is None:
            return collate_windows(mine, self.event_weights)
        return collate_windows(
            self.augmenter.of(histories_of(mine), step, places.tolist()), self.event_weights
        )

    def _without_targets(self, windows: pa.Table) -> Batch:
        # Nothing for this rank in the epoch's last batch, or nobody was drawn: it takes part, and
        # learns nothing.
        batch = collate_windows(windows, self.event_weights)
        batch.targets.fill_(NO_TARGET)
        return batch


class Ingest:
    """Asks an iterator for its next items on a thread of its own, a few of them ahead.

    Order is kept. What the iterator raises, `epoch` raises when it comes to that item. Leaving the
    `with` block ends the thread, unless that hangs.
    """

    def __init__(
        self, batches: Iterator[Ready | None], ahead: int = AHEAD, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._batches = batches
        self._timeout_s = timeout_s
        self._hangs = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ingest")
        self._ahead: deque[Future[Ready | None]] = deque()
        for _ in range(ahead):
            self._ask()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=not self._hangs, cancel_futures=True)

    def epoch(self) -> Iterator[Ready]:
        """The batches that are left of an epoch.

        Raises:
            TimeoutError: a batch did not come in time.
        """
        while (ready := self._next()) is not None:
            yield ready

    def _next(self) -> Ready | None:
        ahead = self._ahead.popleft()
        try:
            ready = ahead.result(self._timeout_s)
        except TimeoutError as error:
            if ahead.done():
                raise  # one of the iterator's own
            self._hangs = True
            raise TimeoutError(
                f"no batch came in {self._timeout_s:g} s: the storage of the dataset hangs, or "
                "training.shuffle_windows is more than it gives in that time"
            ) from error
        self._ask()
        return ready

    def _ask(self) -> None:
        self._ahead.append(self._pool.submit(next, self._batches, None))

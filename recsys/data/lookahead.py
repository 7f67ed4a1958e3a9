"""What must be known of all events before any is written: the k-core, and when they happened.

Each pass over the blocks sends back arrays as long as the catalogue or the calendar, never events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray

from recsys import schema
from recsys.config import PrepareConfig, SplitConfig
from recsys.data.history import user_starts
from recsys.data.split import BY_TIME, TimeCounts
from recsys.schema import SECONDS_A_DAY


@dataclass(frozen=True)
class Core:
    """The events of items that are `alive` (N,) and of users with enough of them."""

    alive: np.ndarray
    min_user_events: int

    def keep(self, events: pa.Table) -> pa.Table:
        """The sorted events that are in the core."""
        living = self.alive[events[schema.ITEM_INDEX].to_numpy()]
        starts = user_starts(events)
        sizes = np.diff(np.append(starts, len(events)))
        counts = np.add.reduceat(living, starts, dtype=np.int64) if len(starts) else sizes
        enough = np.repeat(counts >= self.min_user_events, sizes)
        return events.filter(pa.array(living & enough))


def find_core(events: ray.data.Dataset, config: PrepareConfig, num_items: int) -> Core | None:
    """The k-core of whole users' events; None where the config asks for none.

    Users or items with too few events go, which may leave others with too few, until none is left
    (Seidman 1983). Users lie whole in a block, so a round is one pass that counts items. All
    events count, also held-out ones, as in the public benchmarks.
    """
    if max(config.min_user_events, config.min_item_events) == 1:
        return None
    core = Core(np.ones(num_items, dtype=bool), config.min_user_events)
    while True:
        counts = _count_items(events, core, num_items)
        alive = core.alive & (counts >= config.min_item_events)
        if alive.sum() == core.alive.sum():
            return core
        core = Core(alive, config.min_user_events)


def _count_items(events: ray.data.Dataset, core: Core, num_items: int) -> np.ndarray:
    def count(block: pa.Table) -> pa.Table:
        kept = core.keep(block)[schema.ITEM_INDEX].to_numpy()
        items, counts = np.unique(kept, return_counts=True)
        return pa.table({"items": [items], "counts": [counts]})

    total = np.zeros(num_items, dtype=np.int64)
    for row in _each_block(events, count):
        total[np.array(row["items"], int)] += np.array(row["counts"], int)
    return total


def measure_times(
    events: ray.data.Dataset, split: SplitConfig, core: Core | None
) -> TimeCounts | None:
    """When the events happened: by the day, and by the second on the days where a cut may fall.

    None for strategies that do not look at the time.
    """
    if split.strategy not in BY_TIME:
        return None
    days = _count_times(events, core, lambda seconds: seconds // SECONDS_A_DAY * SECONDS_A_DAY)
    near = days.times[days.around(split)]

    def by_second(seconds: np.ndarray) -> np.ndarray:
        start = seconds // SECONDS_A_DAY * SECONDS_A_DAY
        return np.where(np.isin(start, near), seconds, start)

    return _count_times(events, core, by_second)


def _count_times(
    events: ray.data.Dataset, core: Core | None, rounded: Callable[[np.ndarray], np.ndarray]
) -> TimeCounts:
    def count(block: pa.Table) -> pa.Table:
        kept = block if core is None else core.keep(block)
        found = TimeCounts.of(rounded(kept[schema.TIMESTAMP].to_numpy()))
        return pa.table({"times": [found.times], "counts": [found.counts]})

    rows = _each_block(events, count)
    parts = [TimeCounts(np.array(row["times"]), np.array(row["counts"])) for row in rows]
    return TimeCounts.total([part for part in parts if len(part.times)])


def _each_block(events: ray.data.Dataset, count: Callable[[pa.Table], pa.Table]) -> list[dict]:
    return events.map_batches(count, batch_size=None, batch_format="pyarrow").take_all()

"""How often each item was taken on each day, from the events of a dataset.

Shapes: N items, D days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from recsys import schema
from recsys.artifact import Artifact
from recsys.bulk.histories import read_files
from recsys.config.bulk import ForecastConfig
from recsys.data.history import EVENT_INDEX
from recsys.schema import SECONDS_A_DAY

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class DailyCounts:
    """`counts` (N, D) float32 events of each item on each day; days are numbers since 1970.

    `is_old` (N,) is whether an item had events before `first_day`, the day of column 0.
    """

    counts: np.ndarray
    first_day: int
    is_old: np.ndarray

    @property
    def num_days(self) -> int:
        """D."""
        return self.counts.shape[1]

    @cached_property
    def first_column(self) -> np.ndarray:
        """(N,) the column of each item's first event: 0 for an old item, `NEVER` without any."""
        has_events = self.counts > 0
        first = np.where(has_events.any(1), has_events.argmax(1), NEVER)
        return np.where(self.is_old, 0, first)


def counted(events: pa.Table, kinds: Sequence[int] | None, offset_s: int) -> pa.Table:
    """The events of these kinds, or all, by `item` and `day`; those without a time are left out.

    Days begin `offset_s` seconds before those of UTC.
    """
    frame = pl.DataFrame(pl.from_arrow(events)).filter(
        pl.col(schema.TIMESTAMP) != schema.UNKNOWN_TIME,
        pl.lit(True) if kinds is None else pl.col(EVENT_INDEX).is_in(kinds),
    )
    day = (pl.col(schema.TIMESTAMP) + offset_s) // SECONDS_A_DAY
    grouped = frame.group_by(pl.col(schema.ITEM_INDEX).alias("item"), day.alias("day"))
    return grouped.agg(pl.len().alias("count")).to_arrow()


def span_of(counts: pa.Table) -> pa.Table:
    """One row, the first and the last day of `counted`; no row where nothing was counted."""
    days = pl.DataFrame(pl.from_arrow(counts))["day"]
    kept = pl.DataFrame(
        {"first": [days.min()], "last": [days.max()]}, {"first": pl.Int64, "last": pl.Int64}
    )
    return kept.drop_nulls().to_arrow()


def empty_counts(num_items: int, first_day: int, last_day: int) -> DailyCounts:
    """No events, from the first day to the last."""
    counts = np.zeros((num_items, last_day - first_day + 1), np.float32)
    return DailyCounts(counts, first_day, np.zeros(num_items, dtype=bool))


def only_items(daily: DailyCounts, kept: np.ndarray) -> DailyCounts:
    """The counts of the items where `kept` (N,) holds."""
    return DailyCounts(daily.counts[kept], daily.first_day, daily.is_old[kept])


def add(found: DailyCounts, block: pa.Table) -> None:
    """Add a block's counts in place. Whole numbers below 2^24 add up in any order."""
    items, columns = block["item"].to_numpy(), block["day"].to_numpy() - found.first_day
    inside = columns >= 0
    np.add.at(found.counts, (items[inside], columns[inside]), block["count"].to_numpy()[inside])
    found.is_old[items[~inside]] = True


def count_days(
    config: ForecastConfig, dataset: Artifact, kinds: Sequence[int] | None, num_items: int
) -> DailyCounts:
    """The counts of a dataset's newest days, by two passes: which days there are, and the counts.

    Raises:
        ValueError: no event is of these kinds and has a time.
    """
    offset = offset_s(config)
    spans = pa.concat_tables(
        read_files(dataset, lambda events: span_of(counted(events, kinds, offset)))
    )
    if not len(spans):
        raise ValueError(f"{dataset.uri} has no event with a time to count: see forecast.events")
    last_day = max(spans["last"].to_pylist())
    first_day = max(min(spans["first"].to_pylist()), last_day - config.history_days + 1)
    found = empty_counts(num_items, first_day, last_day)
    for block in read_files(dataset, lambda events: counted(events, kinds, offset)):
        add(found, block)
    return found


def offset_s(config: ForecastConfig) -> int:
    """What the shop's clock is ahead of UTC, in seconds."""
    return round(3600 * config.utc_offset_hours)

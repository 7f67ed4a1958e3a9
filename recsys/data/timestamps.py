"""Units of timestamps: what an integer counts, and how it becomes Unix seconds."""

from __future__ import annotations

import polars as pl

STARTS = {"s": 0, "ms": 10**11, "us": 10**14, "ns": 10**17}
"""The least number that is taken for this unit. 10^11 seconds is the year 5138 and 10^11
milliseconds is 1973, so that from 1973 on no number fits two units."""
FACTORS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def unit_of(time: int) -> str:
    """The unit that a timestamp of this size, 0 or greater, seems to have."""
    return next(unit for unit in reversed(STARTS) if time >= STARTS[unit])


def to_seconds(column: str, unit: str) -> pl.Expr:
    """A column of timestamps in whole seconds; with unit `auto` by each row's own unit."""
    raw = pl.col(column)
    if unit != "auto":
        return raw // FACTORS[unit]
    seconds = raw
    for name in ("ms", "us", "ns"):
        seconds = pl.when(raw < STARTS[name]).then(seconds).otherwise(raw // FACTORS[name])
    return seconds

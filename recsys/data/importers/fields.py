"""Text of a source to a column of a raw table: ids, words, numbers, prices, times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import polars as pl

TimeUnit = Literal["s", "ms", "us", "ns", "iso"]
UNITS_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_PRICE = r"^\s*(?:[Ff]rom\s+)?\$?\s*([0-9][0-9,]*(?:\.[0-9]+)?)(?:\s*-\s*\$?\s*[0-9][0-9,.]*)?\s*$"


@dataclass(frozen=True)
class Field:
    """A column, as an expression over a batch's text.

    `broken` is true in rows whose text is not what it must be. Such a row is rejected with
    `reason`, or, where `rejects` is false, keeps an empty value, which is counted.
    """

    value: pl.Expr
    broken: pl.Expr
    reason: str
    rejects: bool = True


def identifier(name: str) -> Field:
    """An id, kept character for character; a row without one is rejected."""
    value = _given(name)
    return Field(value, value.is_null(), f"no {name}")


def text(name: str) -> Field:
    """Words as they stand; blank is null."""
    return of_expr(_given(name))


def joined(names: Sequence[str], joint: str) -> Field:
    """The given ones of several columns in one text."""
    return of_expr(
        _filled(pl.concat_str([_given(n) for n in names], separator=joint, ignore_nulls=True))
    )


def first_of(names: Sequence[str]) -> Field:
    """The first given one of several columns."""
    return of_expr(pl.coalesce([_given(name) for name in names]))


def of_expr(value: pl.Expr) -> Field:
    """A column that any text fits."""
    return Field(value, pl.lit(False), "")


def number(name: str) -> Field:
    """A finite float64; blank and NaN are null."""
    value = _given_number(name).cast(pl.Float64, strict=False)
    value = pl.when(value.is_finite()).then(value)
    return Field(value, _lost_number(name, value), f"{name} is no number")


def integer(name: str) -> Field:
    """An int64, which may be written as a float; blank and NaN are null."""
    value = _whole(name)
    return Field(value, _lost_number(name, value), f"{name} is no whole number")


def price(name: str) -> Field:
    """A number with or without a dollar sign; of a range the lower end; anything else is null."""
    found = _given(name).str.extract(_PRICE).str.replace_all(",", "")
    value = found.cast(pl.Float64, strict=False)
    return Field(value, _lost(name, value), f"{name} is no price", rejects=False)


def seconds(name: str, unit: TimeUnit) -> Field:
    """int64 Unix seconds (rounded down) from a number of `unit` or from ISO 8601 text.

    ISO text without an offset is UTC.
    """
    if unit == "iso":
        value = _given(name).map_elements(_iso_seconds, return_dtype=pl.Int64)
        return Field(value, _lost(name, value), f"{name} is no ISO 8601 time")
    value = _whole(name) // UNITS_A_SECOND[unit]
    return Field(value, _lost_number(name, value), f"{name} is no number of {unit}")


def seconds_as(name: str, pattern: str) -> Field:
    """int64 Unix seconds from text of a strftime `pattern`, taken as UTC."""
    value = _given(name).str.to_datetime(pattern, strict=False).dt.epoch("s")
    return Field(value, _lost(name, value), f"{name} is no time like {pattern}")


def _given(name: str) -> pl.Expr:
    return _filled(pl.col(name))


def _filled(value: pl.Expr) -> pl.Expr:
    return pl.when(value.str.strip_chars() != "").then(value)


def _lost(name: str, value: pl.Expr) -> pl.Expr:
    return _given(name).is_not_null() & value.is_null()


def _given_number(name: str) -> pl.Expr:
    digits = _given(name).str.strip_chars()
    return pl.when(digits.str.to_lowercase() != "nan").then(digits)


def _lost_number(name: str, value: pl.Expr) -> pl.Expr:
    return _given_number(name).is_not_null() & value.is_null()


def _whole(name: str) -> pl.Expr:
    digits = _given_number(name)
    return pl.coalesce(
        digits.cast(pl.Int64, strict=False),
        digits.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False),
    )


def _iso_seconds(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() // 1)

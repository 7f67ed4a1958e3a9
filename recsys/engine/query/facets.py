"""How the items of a result divide: counts by value, and by range of a number. Shapes: N items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.index.item_columns import attribute_columns

NUM_VALUES = 20
NUM_RANGES = 5
_STEPS = np.array([1.0, 2.0, 5.0, 10.0])
_NOT_COUNTED = -1


@dataclass(frozen=True, slots=True)
class FacetCount:
    """How many items have a value, or lie in `minimum` <= x < `maximum` (None: no bound)."""

    count: int
    value: str | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Facet:
    """Counts of one column, most frequent value first or ranges from low to high.

    Every item is counted once: `missing` have no value, `others` one that is not listed.
    """

    column: str
    counts: tuple[FacetCount, ...]
    missing: int
    others: int = 0


class Facets:
    """Counts over results of one catalogue."""

    def __init__(self, items: pa.Table) -> None:
        """Of every attribute of `items`: texts and booleans by value, numbers by range."""
        self._numbers: dict[str, np.ndarray] = {}
        self._codes: dict[str, tuple[np.ndarray, list[str]]] = {}
        for name in attribute_columns(items):
            self._add(name, pl.Series(name, pl.from_arrow(items[name])))

    @property
    def columns(self) -> tuple[str, ...]:
        """What can be counted."""
        return (*self._codes, *self._numbers)

    def count(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> list[Facet]:
        """The facets of the items at `rows` (M,), each row once; of all columns where None.

        Raises:
            ValueError: a column that is not counted here.
        """
        wanted = self.columns if columns is None else columns
        unknown = [name for name in wanted if name not in self.columns]
        if unknown:
            raise ValueError(f"no facet {unknown}: the catalogue has {list(self.columns)}")
        distinct = np.unique(np.asarray(rows, dtype=np.int64))
        return [
            _by_value(name, *self._codes[name], distinct)
            if name in self._codes
            else _by_range(name, self._numbers[name][distinct])
            for name in wanted
        ]

    def _add(self, name: str, column: pl.Series) -> None:
        if column.dtype.is_numeric():
            self._numbers[name] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
            return
        texts = column.cast(pl.String).replace("", None)
        values = texts.drop_nulls().unique(maintain_order=True)
        codes = texts.replace_strict(
            values, range(len(values)), default=_NOT_COUNTED, return_dtype=pl.Int64
        )
        self._codes[name] = (codes.to_numpy(), values.to_list())


def _by_value(name: str, codes_N: np.ndarray, values: list[str], rows: np.ndarray) -> Facet:
    codes = codes_N[rows]
    numbers = np.bincount(codes[codes != _NOT_COUNTED], minlength=len(values))
    listed = np.argsort(-numbers, kind="stable")[:NUM_VALUES]
    counts = [FacetCount(int(numbers[c]), values[c]) for c in listed.tolist() if numbers[c]]
    others = int(numbers.sum()) - sum(count.count for count in counts)
    return Facet(name, tuple(counts), int((codes == _NOT_COUNTED).sum()), others)


def _by_range(name: str, numbers_M: np.ndarray) -> Facet:
    known = numbers_M[np.isfinite(numbers_M)]
    missing = len(numbers_M) - len(known)
    if not len(known):
        return Facet(name, (), missing)
    edges = _round_edges(known)
    places = np.searchsorted(edges, known, side="right")
    numbers = np.bincount(places, minlength=len(edges) + 1).tolist()
    lows, highs = [None, *edges.tolist()], [*edges.tolist(), None]
    counts = [
        FacetCount(number, minimum=low, maximum=high)
        for number, low, high in zip(numbers, lows, highs, strict=True)
        if number
    ]
    return Facet(name, tuple(counts), missing)


def _round_edges(known: np.ndarray) -> np.ndarray:
    """Quantiles, each rounded to 1, 2 or 5 times a power of ten: near even shares, easy to read."""
    inner = np.quantile(known, np.arange(1, NUM_RANGES) / NUM_RANGES)
    inner = inner[inner > 0]
    powers = 10.0 ** np.floor(np.log10(inner))
    nearest = np.abs((inner / powers)[:, None] - _STEPS).argmin(axis=1)
    return np.unique((_STEPS[nearest] * powers).round(10))

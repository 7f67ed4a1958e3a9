"""Which items may be answered: conditions on the columns of the items, applied before top-k.

A filter that few items pass still gives as many answers as were asked for. An item without a value
matches no condition, so a negated filter, which takes what does not match, takes it.

Shapes: N items.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys.index.item_columns import Kind, kind_of

NUM_MASKS = 64
"""Masks kept: of a million items 64 MB."""
TYPES: dict[Kind, tuple[type, ...]] = {"text": (str,), "number": (int, float), "boolean": (bool,)}


@dataclass(frozen=True, slots=True)
class Filter:
    """Items whose `column` is one of `values`, where there are any, and lies within the range.

    Both ends of the range belong to it; None leaves it open. `negated` takes all other items, those
    without a value among them.
    """

    column: str
    values: tuple[str | float | bool, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    negated: bool = False

    @property
    def has_range(self) -> bool:
        """Whether the range has an end."""
        return self.minimum is not None or self.maximum is not None


class ItemFilters:
    """The columns of N items by name, and the masks of the filters that were asked for last."""

    def __init__(self, columns: Mapping[str, pa.Array], num_items: int) -> None:
        self._columns = columns
        self._num_items = num_items
        self._mask = lru_cache(NUM_MASKS)(self._compute)

    def allowed(self, filters: Sequence[Filter]) -> torch.Tensor | None:
        """(N,) bool, which items pass all filters; None where there are no filters.

        Raises:
            ValueError: see `check`.
        """
        self.check(filters)
        # In one order, so that the same filters share a mask.
        return self._mask(tuple(sorted(set(filters), key=repr))) if filters else None

    def check(self, filters: Sequence[Filter]) -> None:
        """Hold that the items can be filtered so.

        Raises:
            ValueError: there is no such column, its values are of another type, it has no range,
                or the filter says nothing; names what is allowed.
        """
        for one in filters:
            if one.column not in self._columns:
                raise ValueError(
                    f"no column '{one.column}' to filter by: name one of {_listed(self._columns)}"
                )
            self._check_values(one)
            self._check_range(one)

    def _check_values(self, one: Filter) -> None:
        kind = self._kind(one.column)
        wrong = [v for v in one.values if not _is_a(v, kind)]
        if wrong:
            raise ValueError(
                f"column '{one.column}' holds {kind}s and {wrong[0]!r} is none: "
                f"send values of the column's type"
            )
        if not one.values and not one.has_range:
            raise ValueError(
                f"the filter on '{one.column}' says nothing: give it values, minimum or maximum"
            )

    def _check_range(self, one: Filter) -> None:
        if not one.has_range:
            return
        if self._kind(one.column) != "number":
            ranges = _listed(name for name in self._columns if self._kind(name) == "number")
            raise ValueError(f"column '{one.column}' has no range: name values, or one of {ranges}")
        low, high = _ends(one)
        if not low <= high:
            raise ValueError(f"'{one.column}' from {low} to {high} is no range")

    def _kind(self, column: str) -> Kind:
        kind = kind_of(self._columns[column].type)
        assert kind is not None
        return kind

    def _compute(self, filters: tuple[Filter, ...]) -> torch.Tensor:
        mask_N = np.ones(self._num_items, dtype=bool)
        for one in filters:
            mask_N &= _matches(self._columns[one.column], one) != one.negated
        return torch.from_numpy(mask_N)


def _matches(column: pa.Array, one: Filter) -> np.ndarray:
    """(N,) bool, False where there is no value."""
    mask_N = np.ones(len(column), dtype=bool)
    if one.values:
        mask_N &= _is_in(column, one.values)
    if one.has_range:
        low, high = _ends(one)
        numbers_N = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        mask_N &= (numbers_N >= low) & (numbers_N <= high)
    return mask_N


def _is_in(column: pa.Array, values: Sequence[str | float | bool]) -> np.ndarray:
    if isinstance(column, pa.DictionaryArray):
        wanted = pc.index_in(pa.array(values, column.dictionary.type), column.dictionary)
        return pc.is_in(column.indices, wanted.drop_null()).to_numpy(zero_copy_only=False)
    kind = pa.bool_() if pa.types.is_boolean(column.type) else pa.float64()
    return pc.is_in(column.cast(kind), pa.array(values, kind)).to_numpy(zero_copy_only=False)


def _ends(one: Filter) -> tuple[float, float]:
    low = -math.inf if one.minimum is None else one.minimum
    return low, math.inf if one.maximum is None else one.maximum


def _is_a(value: str | float | bool, kind: Kind) -> bool:
    """`bool` is an `int` to Python, and none here; what is not a number is none either."""
    is_boolean = isinstance(value, bool)
    return isinstance(value, TYPES[kind]) and is_boolean == (kind == "boolean") and value == value


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"

"""Numbers as the report pages write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value from a report can be written and drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object) -> str:
    """A metric, "-" where it is unknown."""
    return f"{value:.4f}" if is_number(value) else "-"


def signed(value: object) -> str:
    """A difference of metrics with its sign."""
    return f"{value:+.4f}" if is_number(value) else "-"


def interval_text(low: object, high: object, with_sign: bool = False) -> str:
    """Both ends of an interval, "-" where one is unknown."""
    write = signed if with_sign else number
    return f"[{write(low)}, {write(high)}]" if is_number(low) and is_number(high) else "-"


def best_in_bold(values: Sequence[object]) -> list[str]:
    """Cells of one metric, the best in bold."""
    cells = [number(value) for value in values]
    best = max((value for value in values if is_number(value)), default=None)
    if len(values) < 2 or best is None:
        return cells
    return [f"<b>{cell}</b>" if cell == number(best) else cell for cell in cells]


def count(value: object) -> str:
    """A whole number, or any other value as escaped text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else escape(str(value))

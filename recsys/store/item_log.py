"""What a log of changed items does: replicas follow it, so that all of them have every change.

Of each item the log keeps the last change alone. Changes have numbers that grow, so who has seen
all up to a number asks for what is behind it; and they can be applied again at will, as a change
says what an item is now and not what became of it. The number is the Unix time in microseconds at
which the change was logged, or one more than the last number where that is not greater.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from recsys.schema import SECONDS_A_DAY

Value = str | int | float | bool | None
ItemRow = Mapping[str, Value]
MICROSECONDS = 1_000_000
PURGED_AT_ONCE = 1_000
"""Changes that are dropped for their age when one is added."""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What an item is from now on; without a `row` it is removed."""

    number: int
    item_id: str
    row: ItemRow | None


class ItemLog(Protocol):
    """The changes of items. May be used by many threads, and many processes write at once.

    Every method but `close` raises `StoreUnavailable` within the time-out.
    """

    def append(self, item_id: str, row: ItemRow | None) -> int:
        """Log a change in place of the item's last one; returns its number."""
        ...

    def after(self, number: int, count: int) -> Sequence[ItemChange]:
        """The first `count` changes behind a number, in order."""
        ...

    def close(self) -> None:
        """Give connections back; the log is not used after that."""
        ...


def oldest_number(now: float, keep_days: int) -> int:
    """The number before which changes are dropped."""
    return int((now - keep_days * SECONDS_A_DAY) * MICROSECONDS)


def to_json(row: ItemRow | None) -> str:
    """A row as it is stored; "null" is a removal."""
    return json.dumps(None if row is None else dict(row), ensure_ascii=False, allow_nan=False)

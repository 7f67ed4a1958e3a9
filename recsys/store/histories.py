"""What a store of histories does, and the events it keeps.

A history is the newest `max_events` events of one user that are not older than `ttl_days`, by time;
events of one second are in the order in which they came. What is kept is decided by three rules:

- An event whose id the history has is a duplicate, whatever else it says.
- One that is older than `ttl_days`, or not newer than an event that was pushed out, is outdated.
- Any other is added, and pushes the oldest out where there are more than `max_events`.

So the same call made twice leaves what it left the first time. An id is known for as long as its
event is in the history: an event that was pushed out and comes again with a newer time is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from recsys.schema import SECONDS_A_DAY


class StoreUnavailable(Exception):
    """The store does not answer, or cannot do what it is asked; the message says what to check."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a user. `timestamp` is Unix seconds, `value` is finite or None."""

    event_id: str
    item_id: str
    timestamp: int
    event: str | None = None
    value: float | None = None


ADDED, DUPLICATE, OUTDATED = range(3)
"""What may become of an event."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of each event of a call, by event id in the order given."""

    added: list[str]
    duplicates: list[str]
    outdated: list[str]

    @classmethod
    def of(cls, events: Sequence[StoredEvent], kinds: Sequence[int]) -> Self:
        """From what became of each event."""
        pairs = list(zip(events, kinds, strict=True))
        return cls(*([e.event_id for e, kind in pairs if kind == wanted] for wanted in range(3)))


class HistoryStore(Protocol):
    """Histories by user id. May be used by many threads, and many processes write at once.

    Every method but `close` and `healthy` raises `StoreUnavailable` within the time-out.
    """

    def append(self, user_id: str, events: Sequence[StoredEvent]) -> Appended:
        """Add events to a history, all or none of them."""
        ...

    def last(self, user_id: str, count: int) -> list[StoredEvent]:
        """The newest `count` events, oldest first."""
        ...

    def version(self, user_id: str) -> str:
        """Names the state of a history: another one after every call that adds an event.

        It does not change when an event grows too old, and no state after a deletion has the name
        of one before. A cache reads it before the history, and keeps nothing under "", the version
        of a history without events.
        """
        ...

    def delete(self, user_id: str) -> int:
        """Forget a user; returns how many events `last` could have told."""
        ...

    def healthy(self) -> bool:
        """Whether the store answers."""
        ...

    def close(self) -> None:
        """Give connections back; the store is not used after that."""
        ...


def oldest_kept(now: float, ttl_days: int) -> int:
    """The Unix second before which events are forgotten."""
    return int(now) - ttl_days * SECONDS_A_DAY

"""What the service remembers of users: their histories, and the log for the next training."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence

from recsys.engine.recommender import Event
from recsys.schema import SECONDS_A_DAY
from recsys.serving.api.requests import FeedbackEvent
from recsys.serving.api.responses import EventsResponse
from recsys.store.feedback import FeedbackLog, FeedbackRefused, LoggedEvent
from recsys.store.histories import HistoryStore, StoredEvent, StoreUnavailable

NO_STORE = "history: this service remembers none; send 'history'"
STORE_DOWN = "history: the store does not answer"
LOG_FULL = "feedback: the log takes no more events at the moment"
MAX_AHEAD_S = SECONDS_A_DAY
"""How far a client's clock may be ahead: an event of next year would stay the newest for a year."""

log = logging.getLogger(__name__)


class BadEvent(Exception):
    """An event that cannot be; the message says why."""


class MemoryUnavailable(Exception):
    """Events could be remembered nowhere; they are to be sent again."""


class UserMemory:
    """A store of histories and a log of feedback; either may be missing."""

    def __init__(
        self, store: HistoryStore | None, feedback: FeedbackLog | None, max_history: int
    ) -> None:
        self.store, self.feedback = store, feedback
        self._max_history = max_history

    async def history_of(
        self, user_id: str | None, sent: list[Event] | None
    ) -> tuple[list[Event], list[str]]:
        """The history that was sent or is remembered, oldest first, and what could not be used.

        A store that does not answer costs the history, not the answer.
        """
        if sent is not None or user_id is None:
            return sent or [], []
        if self.store is None:
            return [], [NO_STORE]
        try:
            stored = await asyncio.to_thread(self.store.last, user_id, self._max_history)
        except StoreUnavailable as error:
            log.error("answered without history: %s", error)
            return [], [STORE_DOWN]
        return [Event(e.item_id, e.timestamp, e.event) for e in stored], []

    async def remember(self, events: Sequence[FeedbackEvent]) -> EventsResponse:
        """Append to the log and to the histories. A repeated call is safe: events have ids.

        Raises:
            MemoryUnavailable: neither took them.
            BadEvent: an event is of a later day than today.
        """
        whole = _completed(events, int(time.time()))
        degraded, duplicates, outdated = [], 0, 0
        try:
            self._log(whole)
        except FeedbackRefused as error:
            log.error("feedback does not take events: %s", error)
            degraded.append(LOG_FULL)
        try:
            duplicates, outdated = await asyncio.to_thread(self._append, whole)
        except StoreUnavailable as error:
            log.error("histories do not take events: %s", error)
            degraded.append(STORE_DOWN)
        if len(degraded) == (self.store is not None) + (self.feedback is not None):
            raise MemoryUnavailable("the events were not taken: send them again later")
        return EventsResponse(
            accepted=len(whole) - duplicates - outdated,
            duplicates=duplicates,
            outdated=outdated,
            degraded=degraded,
        )

    async def forget(self, user_id: str) -> int:
        """Delete a user's history; returns how many events there were.

        Raises:
            MemoryUnavailable: the store does not answer: ask again later.
        """
        assert self.store is not None
        try:
            return await asyncio.to_thread(self.store.delete, user_id)
        except StoreUnavailable as error:
            log.error("a user could not be deleted: %s", error)
            raise MemoryUnavailable("nothing was deleted: ask again later") from error

    def close(self) -> None:
        """Write what is in memory."""
        if self.feedback is not None:
            self.feedback.close()
        if self.store is not None:
            self.store.close()

    def _append(self, events: Sequence[LoggedEvent]) -> tuple[int, int]:
        """How many events were duplicates, and how many too old."""
        if self.store is None:
            return 0, 0
        by_user: defaultdict[str, list[StoredEvent]] = defaultdict(list)
        for e in events:
            assert e.event_id is not None
            stored = StoredEvent(e.event_id, e.item_id, e.timestamp, e.event, e.value)
            by_user[e.user_id].append(stored)
        appended = [self.store.append(user, own) for user, own in by_user.items()]
        return sum(len(a.duplicates) for a in appended), sum(len(a.outdated) for a in appended)

    def _log(self, events: Sequence[LoggedEvent]) -> None:
        if self.feedback is not None:
            self.feedback.append_events(events)


def _completed(events: Sequence[FeedbackEvent], now: int) -> list[LoggedEvent]:
    """With the time and the id that each event must have."""
    whole = [
        LoggedEvent(
            user_id=e.user_id,
            item_id=e.item_id,
            timestamp=now if e.timestamp is None else e.timestamp,
            event=e.event,
            value=e.value,
            event_id=e.event_id or uuid.uuid4().hex,
            request_id=e.request_id,
        )
        for e in events
    ]
    ahead = [e for e in whole if e.timestamp > now + MAX_AHEAD_S]
    if ahead:
        raise BadEvent(
            f"events.timestamp: {ahead[0].timestamp} is more than a day after now, {now}: send "
            "Unix seconds, or leave it out"
        )
    return whole

"""Histories in one SQLite file: for one machine, and for tests in memory."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

from recsys.config import StoreConfig
from recsys.store.histories import (
    ADDED,
    DUPLICATE,
    OUTDATED,
    Appended,
    StoredEvent,
    StoreUnavailable,
    oldest_kept,
)
from recsys.store.sqlite_file import SqliteFile

PURGED_AT_ONCE = 1_000
"""Events of other users that an append deletes for their age: a millisecond's work."""

# `seq` is never used again, also not after a deletion, so the greatest of a user is a version.
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    event TEXT,
    value REAL,
    UNIQUE (user_id, event_id)
);
CREATE INDEX IF NOT EXISTS events_by_user ON events (user_id, timestamp);
CREATE INDEX IF NOT EXISTS events_by_age ON events (timestamp);
CREATE TABLE IF NOT EXISTS pushed_out (
    user_id TEXT PRIMARY KEY,
    timestamp INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS pushed_out_by_age ON pushed_out (timestamp);
"""


class SqliteStore:
    """A `HistoryStore` in a file, or in memory where `path` is ":memory:".

    `now` tells the Unix time.

    Raises:
        StoreUnavailable: the file cannot be opened or is no database.
    """

    def __init__(
        self, path: str, config: StoreConfig, now: Callable[[], float] = time.time
    ) -> None:
        self._config, self._now = config, now
        self._file = SqliteFile("history store", "store", path, config.timeout_s, SCHEMA)

    def append(self, user_id: str, events: Sequence[StoredEvent]) -> Appended:
        """See `HistoryStore`."""
        with self._file.transaction() as db:
            cutoff = self._cutoff()
            _purge(db, user_id, cutoff)
            newest_refused = max(cutoff - 1, _newest_pushed_out(db, user_id))
            kinds = [_put(db, user_id, event, newest_refused) for event in events]
            pushed_out = _push_out(db, user_id, self._config.max_events)
        for place, event in enumerate(events):
            if kinds[place] == ADDED and event.event_id in pushed_out:
                kinds[place] = OUTDATED
        return Appended.of(events, kinds)

    def last(self, user_id: str, count: int) -> list[StoredEvent]:
        """See `HistoryStore`."""
        with self._file.connection() as db:
            rows = db.execute(
                "SELECT event_id, item_id, timestamp, event, value FROM events "
                "WHERE user_id = ? AND timestamp >= ? ORDER BY timestamp DESC, seq DESC LIMIT ?",
                (user_id, self._cutoff(), count),
            ).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def version(self, user_id: str) -> str:
        """See `HistoryStore`."""
        with self._file.connection() as db:
            newest = db.execute(
                "SELECT max(seq) FROM events WHERE user_id = ? AND timestamp >= ?",
                (user_id, self._cutoff()),
            ).fetchone()[0]
        return "" if newest is None else str(newest)

    def delete(self, user_id: str) -> int:
        """See `HistoryStore`."""
        with self._file.transaction() as db:
            _purge_user(db, user_id, self._cutoff())
            deleted = db.execute("DELETE FROM events WHERE user_id = ?", (user_id,)).rowcount
            db.execute("DELETE FROM pushed_out WHERE user_id = ?", (user_id,))
        with self._file.connection() as db:
            # Else the log beside the file would hold what was deleted until it is full.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def healthy(self) -> bool:
        """See `HistoryStore`."""
        try:
            with self._file.connection() as db:
                db.execute("SELECT 1 FROM events LIMIT 1")
        except StoreUnavailable:
            return False
        return True

    def close(self) -> None:
        """See `HistoryStore`."""
        self._file.close()

    def _cutoff(self) -> int:
        return oldest_kept(self._now(), self._config.ttl_days)


def _purge(db: sqlite3.Connection, user_id: str, cutoff: int) -> None:
    """Delete what is too old: all of this user's, and a part of the others'."""
    _purge_user(db, user_id, cutoff)
    db.execute(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE timestamp < ? LIMIT ?)",
        (cutoff, PURGED_AT_ONCE),
    )
    db.execute("DELETE FROM pushed_out WHERE timestamp < ?", (cutoff,))


def _purge_user(db: sqlite3.Connection, user_id: str, cutoff: int) -> None:
    db.execute("DELETE FROM events WHERE user_id = ? AND timestamp < ?", (user_id, cutoff))


def _put(db: sqlite3.Connection, user_id: str, event: StoredEvent, newest_refused: int) -> int:
    """Insert an event if it is to be; returns what became of it."""
    query = "SELECT 1 FROM events WHERE user_id = ? AND event_id = ?"
    if db.execute(query, (user_id, event.event_id)).fetchone():
        return DUPLICATE
    if event.timestamp <= newest_refused:
        return OUTDATED
    db.execute(
        "INSERT INTO events (user_id, event_id, item_id, timestamp, event, value) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (user_id, event.event_id, event.item_id, event.timestamp, event.event, event.value),
    )
    return ADDED


def _newest_pushed_out(db: sqlite3.Connection, user_id: str) -> int:
    query = "SELECT timestamp FROM pushed_out WHERE user_id = ?"
    found = db.execute(query, (user_id,)).fetchone()
    return -1 if found is None else found[0]


def _push_out(db: sqlite3.Connection, user_id: str, max_events: int) -> set[str]:
    """Delete the oldest events above `max_events`; returns their ids."""
    rows = db.execute(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE user_id = ? "
        "ORDER BY timestamp DESC, seq DESC LIMIT -1 OFFSET ?) RETURNING event_id, timestamp",
        (user_id, max_events),
    ).fetchall()
    if rows:
        db.execute(
            "INSERT INTO pushed_out VALUES (?, ?) "
            "ON CONFLICT (user_id) DO UPDATE SET timestamp = excluded.timestamp",
            (user_id, max(timestamp for _, timestamp in rows)),
        )
    return {event_id for event_id, _ in rows}

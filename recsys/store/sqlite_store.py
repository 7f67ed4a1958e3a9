"""Histories in one SQLite file: for one machine, and for tests in memory.

The file is in WAL mode, so processes read while one writes. A commit is not followed by fsync: a
process that dies loses nothing, a machine that does may lose the last commits, never the file.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

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
OUR_MISTAKES = (sqlite3.ProgrammingError, sqlite3.IntegrityError)


class SqliteStore:
    """A `HistoryStore` in a file, or in memory where `path` is ":memory:".

    `now` tells the Unix time.

    Raises:
        StoreUnavailable: the file cannot be opened or is no database.
    """

    def __init__(
        self, path: str, config: StoreConfig, now: Callable[[], float] = time.time
    ) -> None:
        self._path, self._config, self._now = path, config, now
        # One connection for all threads: a commit takes some 50 us, and readers wait no longer.
        self._lock = threading.Lock()
        with self._errors():
            self._db = sqlite3.connect(
                path, config.timeout_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except sqlite3.Error:
                self._db.close()
                raise

    def _prepare(self) -> None:
        # SQLite does not wait with this one: of four processes that open a new file at once, one in
        # twenty was told that the file is locked.
        patient = Retrying(
            retry=retry_if_exception(_is_busy),
            stop=stop_after_delay(self._config.timeout_s),
            wait=wait_random(0.0, 0.05),
            reraise=True,
        )
        patient(self._db.execute, "PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        # What is deleted is overwritten: it cannot be read from the file.
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

    def append(self, user_id: str, events: Sequence[StoredEvent]) -> Appended:
        """See `HistoryStore`."""
        with self._transaction() as db:
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
        with self._connection() as db:
            rows = db.execute(
                "SELECT event_id, item_id, timestamp, event, value FROM events "
                "WHERE user_id = ? AND timestamp >= ? ORDER BY timestamp DESC, seq DESC LIMIT ?",
                (user_id, self._cutoff(), count),
            ).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def version(self, user_id: str) -> str:
        """See `HistoryStore`."""
        with self._connection() as db:
            newest = db.execute(
                "SELECT max(seq) FROM events WHERE user_id = ? AND timestamp >= ?",
                (user_id, self._cutoff()),
            ).fetchone()[0]
        return "" if newest is None else str(newest)

    def delete(self, user_id: str) -> int:
        """See `HistoryStore`."""
        with self._transaction() as db:
            _purge_user(db, user_id, self._cutoff())
            deleted = db.execute("DELETE FROM events WHERE user_id = ?", (user_id,)).rowcount
            db.execute("DELETE FROM pushed_out WHERE user_id = ?", (user_id,))
        with self._connection() as db:
            # Else the log beside the file would hold what was deleted until it is full.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def healthy(self) -> bool:
        """See `HistoryStore`."""
        try:
            with self._connection() as db:
                db.execute("SELECT 1 FROM events LIMIT 1")
        except StoreUnavailable:
            return False
        return True

    def close(self) -> None:
        """See `HistoryStore`."""
        with self._lock:
            self._db.close()

    def _cutoff(self) -> int:
        return oldest_kept(self._now(), self._config.ttl_days)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as db:
            # IMMEDIATE: one that reads first and then cannot write would fail at once.
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield db

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=self._config.timeout_s):
            raise StoreUnavailable(self._explain("other threads wait for it"))
        try:
            with self._errors():
                yield self._db
        finally:
            self._lock.release()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, OUR_MISTAKES):
                raise
            raise StoreUnavailable(self._explain(str(error))) from error

    def _explain(self, cause: str) -> str:
        return (
            f"the history store {self._path} failed ({cause}): check that its folder exists, that "
            f"the disk has room, and that no process holds it longer than {self._config.timeout_s} "
            "s (store.timeout_s)"
        )


def _is_busy(error: BaseException) -> bool:
    return (
        isinstance(error, sqlite3.OperationalError)
        and error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    )


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

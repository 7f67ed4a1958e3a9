"""One SQLite file that many threads and processes share.

The file is in WAL mode, so processes read while one writes. A commit is not followed by fsync: a
process that dies loses nothing, a machine that does may lose the last commits, never the file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from recsys.store.histories import StoreUnavailable

OUR_MISTAKES = (sqlite3.ProgrammingError, sqlite3.IntegrityError)


class SqliteFile:
    """A file with the tables of `schema`, or memory where `path` is ":memory:".

    Messages call it `name` and its settings those of `section`; who waits longer than `timeout_s`
    seconds is told so.

    Raises:
        StoreUnavailable: the file cannot be opened or is no database.
    """

    def __init__(self, name: str, section: str, path: str, timeout_s: float, schema: str) -> None:
        self._name, self._section = name, section
        self._path, self._timeout_s = path, timeout_s
        # One connection for all threads: a commit takes some 50 us, and readers wait no longer.
        self._lock = threading.Lock()
        with self._errors():
            self._db = sqlite3.connect(
                path, timeout_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(schema)
            except sqlite3.Error:
                self._db.close()
                raise

    def _prepare(self, schema: str) -> None:
        # SQLite does not wait with this one: of four processes that open a new file at once, one in
        # twenty was told that the file is locked.
        patient = Retrying(
            retry=retry_if_exception(_is_busy),
            stop=stop_after_delay(self._timeout_s),
            wait=wait_random(0.0, 0.05),
            reraise=True,
        )
        patient(self._db.execute, "PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        # What is deleted is overwritten: it cannot be read from the file.
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(f"BEGIN IMMEDIATE; {schema} COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside, or nothing.

        Raises:
            StoreUnavailable: see `connection`.
        """
        with self.connection() as db:
            # IMMEDIATE: one that reads first and then cannot write would fail at once.
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield db

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time.

        Raises:
            StoreUnavailable: others hold the file too long, or it cannot be read or written.
        """
        if not self._lock.acquire(timeout=self._timeout_s):
            raise StoreUnavailable(self._explain("other threads wait for it"))
        try:
            with self._errors():
                yield self._db
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._db.close()

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
            f"the {self._name} {self._path} failed ({cause}): check that its folder exists, that "
            f"the disk has room, and that no process holds it longer than {self._timeout_s} s "
            f"({self._section}.timeout_s)"
        )


def _is_busy(error: BaseException) -> bool:
    return (
        isinstance(error, sqlite3.OperationalError)
        and error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    )

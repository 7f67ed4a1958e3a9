"""The log of what users did and were shown, from which the next model learns.

Rows wait in memory for `max_seconds` at most, then in the spool, on disk, until the object store
has them. A crash loses what is in memory. A failing object store loses nothing: the spool is sent
when it works again, and once the spool is full new rows are refused.

    <uri>/interactions/date=2026-01-31/part-<unique>.parquet   raw interactions, as `prepare` reads
    <uri>/exposures/date=2026-01-31/part-<unique>.parquet
    <uri>/requests/date=2026-01-31/part-<unique>.parquet

A row is below the day, in UTC, of its own timestamp, so a late one goes into an old folder.
Replicas write at once without knowing of each other, as no two files have one name.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.config import FeedbackConfig
from recsys.storage import StorageError, filesystem
from recsys.store.repeated import Repeated
from recsys.store.spool import Spool

log = logging.getLogger(__name__)

INTERACTIONS, EXPOSURES, REQUESTS = "interactions", "exposures", "requests"
MOST_BUFFERS = 10
"""Times `max_rows` that memory may hold, where the disk does not keep up."""
CLOSE_S = 10.0
"""How long closing waits for the object store; what it does not take stays in the spool."""
MAX_TIMESTAMP = 253_402_300_799
"""Unix seconds of the end of the year 9999, the last that a date has."""

EVENTS = pa.schema(
    [
        (schema.USER_ID, pa.string()),
        (schema.ITEM_ID, pa.string()),
        (schema.TIMESTAMP, pa.int64()),
        (schema.EVENT, pa.string()),
        (schema.VALUE, pa.float64()),
        ("event_id", pa.string()),
        ("request_id", pa.string()),
        ("variant", pa.string()),
        ("position", pa.int32()),
    ]
)
"""Columns of an event; the first five are those of an interaction."""


class FeedbackRefused(Exception):
    """Rows cannot be taken now, and none of the call were; to be tried again later."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """What a user did. `timestamp` is Unix seconds.

    `request_id`, `variant` and `position` (from 1) tell of the answer in which the item was seen.
    """

    user_id: str
    item_id: str
    timestamp: int
    event: str | None = None
    value: float | None = None
    event_id: str | None = None
    request_id: str | None = None
    variant: str | None = None
    position: int | None = None


class FeedbackLog:
    """Takes rows from any thread without waiting for a disk or a network; threads write them.

    Raises:
        ValueError: the URI is of no known form.
        OSError: the spool cannot be made.
    """

    def __init__(self, config: FeedbackConfig) -> None:
        _check_uri(config.uri)
        self._max_rows = config.max_rows
        self._spool = Spool(Path(config.spool), config.uri, config.max_spool_mb << 20)
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._tables: defaultdict[str, list[pa.Table]] = defaultdict(list)
        self._schemas: dict[str, pa.Schema] = {}
        self._num_rows = 0
        self._closed = False
        # Two threads: while one waits for the object store, the other still empties memory.
        self._sender = Repeated("feedback-sender", self._send, config.max_seconds)
        self._writer = Repeated("feedback-writer", self._write, config.max_seconds)

    def append_events(self, events: Sequence[LoggedEvent]) -> None:
        """Log events.

        Raises:
            FeedbackRefused: there is no room, or the log is closed.
            ValueError: a timestamp is before 1970 or after the year 9999.
        """
        self._append(INTERACTIONS, pa.Table.from_pylist([asdict(e) for e in events], EVENTS))

    def append_exposures(self, exposures: pa.Table) -> None:
        """Log answers, in a table with `timestamp` and the same columns in every call.

        Raises:
            FeedbackRefused: there is no room, or the log is closed.
            ValueError: a timestamp is before 1970 or after the year 9999, or the columns differ.
        """
        self._append(EXPOSURES, exposures)

    def append_requests(self, requests: pa.Table) -> None:
        """Log how requests ended, as `append_exposures` logs what they were answered with.

        Raises:
            FeedbackRefused: there is no room, or the log is closed.
            ValueError: a timestamp is before 1970 or after the year 9999, or the columns differ.
        """
        self._append(REQUESTS, requests)

    def flush(self) -> None:
        """Write and send everything now.

        Raises:
            StorageError: the object store cannot be written to; the spool has the rows.
        """
        self._write()
        self._spool.send()

    def close(self) -> None:
        """Refuse further rows, write all and send what can be sent within `CLOSE_S`."""
        with self._lock:
            self._closed = True
        written = self._writer.stop(CLOSE_S)
        sent = self._sender.stop(CLOSE_S)
        if not (written and sent) or self._num_rows or self._spool.num_bytes:
            log.warning(
                "feedback is closed with %d rows in memory, which are lost, and %d bytes in the "
                "spool, which the next start sends",
                self._num_rows,
                self._spool.num_bytes,
            )

    @property
    def num_rows(self) -> int:
        """Rows in memory, which a crash would lose."""
        return self._num_rows

    @property
    def spool_bytes(self) -> int:
        """Size of the files that the object store does not have yet."""
        return self._spool.num_bytes

    def _append(self, name: str, table: pa.Table) -> None:
        _check_times(table)
        with self._lock:
            self._check_room()
            if table.schema != self._schemas.setdefault(name, table.schema):
                raise ValueError(f"{name} must have the columns {self._schemas[name].names}")
            self._tables[name].append(table)
            self._num_rows += len(table)
            is_due = self._num_rows >= self._max_rows
        if is_due:
            self._writer.wake()

    def _check_room(self) -> None:
        if self._closed:
            raise FeedbackRefused("the feedback log is closed")
        if self._spool.is_full:
            raise FeedbackRefused(
                f"the feedback spool is full with {self._spool.num_bytes} bytes: check why the "
                "object store does not take them (the log says), or raise feedback.max_spool_mb"
            )
        if self._num_rows >= MOST_BUFFERS * self._max_rows:
            raise FeedbackRefused(
                f"{self._num_rows} rows of feedback wait for the spool's disk: check that it has "
                "room and is fast enough"
            )

    def _write(self) -> None:
        """Move rows from memory to the spool; what the disk does not take stays in memory."""
        with self._writing:
            with self._lock:
                tables, self._tables = self._tables, defaultdict(list)
            for name, parts in tables.items():
                for day, rows in _by_day(pa.concat_tables(parts)):
                    self._write_day(name, day, rows)
        self._sender.wake()

    def _write_day(self, name: str, day: str, rows: pa.Table) -> None:
        try:
            self._spool.add(f"{name}/date={day}", rows)
        except StorageError:
            log.exception("feedback cannot be written to the spool and stays in memory")
            with self._lock:
                self._tables[name].append(rows)
        else:
            with self._lock:
                self._num_rows -= len(rows)

    def _send(self) -> None:
        try:
            self._spool.send()
        except StorageError:
            log.exception("feedback cannot be sent and stays in the spool")


def _check_uri(uri: str) -> None:
    try:
        filesystem(uri)
    except StorageError:
        # Rows wait in the spool; a service starts without its object store.
        log.exception("the place of feedback cannot be reached")


def _check_times(table: pa.Table) -> None:
    times = table[schema.TIMESTAMP]
    outside = pc.or_(pc.less(times, 0), pc.greater(times, MAX_TIMESTAMP))
    if times.null_count or pc.any(outside).as_py():
        raise ValueError(f"a timestamp of feedback is missing or not in 0 to {MAX_TIMESTAMP}")


def _by_day(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each day in UTC, and its date."""
    days = pc.divide(table[schema.TIMESTAMP], schema.SECONDS_A_DAY)
    for day in pc.unique(days).to_pylist():
        date = datetime.fromtimestamp(day * schema.SECONDS_A_DAY, UTC).date().isoformat()
        yield date, table.filter(pc.equal(days, day))

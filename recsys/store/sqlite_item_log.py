"""Changes of items in one SQLite file: for one machine, and for tests in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from recsys.config import ItemLogConfig
from recsys.store.item_log import (
    MICROSECONDS,
    PURGED_AT_ONCE,
    ItemChange,
    ItemRow,
    oldest_number,
    to_json,
)
from recsys.store.sqlite_file import SqliteFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS item_changes (
    number INTEGER PRIMARY KEY,
    item_id TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL
);
"""


class SqliteItemLog:
    """An `ItemLog` in a file, or in memory where `path` is ":memory:".

    `now` tells the Unix time.

    Raises:
        StoreUnavailable: the file cannot be opened or is no database.
    """

    def __init__(
        self, path: str, config: ItemLogConfig, now: Callable[[], float] = time.time
    ) -> None:
        self._config, self._now = config, now
        self._file = SqliteFile("item log", "items", path, config.timeout_s, SCHEMA)

    def append(self, item_id: str, row: ItemRow | None) -> int:
        """See `ItemLog`."""
        with self._file.transaction() as db:
            [last] = db.execute("SELECT coalesce(max(number), 0) FROM item_changes").fetchone()
            number = max(last + 1, int(self._now() * MICROSECONDS))
            db.execute(
                "DELETE FROM item_changes WHERE number IN "
                "(SELECT number FROM item_changes WHERE number < ? ORDER BY number LIMIT ?)",
                (self._cutoff(), PURGED_AT_ONCE),
            )
            db.execute(
                "INSERT OR REPLACE INTO item_changes VALUES (?, ?, ?)",
                (number, item_id, to_json(row)),
            )
        return number

    def after(self, number: int, count: int) -> list[ItemChange]:
        """See `ItemLog`."""
        with self._file.connection() as db:
            rows = db.execute(
                "SELECT number, item_id, content FROM item_changes "
                "WHERE number > ? AND number >= ? ORDER BY number LIMIT ?",
                (number, self._cutoff(), count),
            ).fetchall()
        return [ItemChange(n, item_id, json.loads(content)) for n, item_id, content in rows]

    def close(self) -> None:
        """See `ItemLog`."""
        self._file.close()

    def _cutoff(self) -> int:
        return oldest_number(self._now(), self._config.keep_days)

"""From a URL to a store of histories, or to a log of items."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from recsys.config import ItemLogConfig, StoreConfig
from recsys.store.histories import HistoryStore
from recsys.store.item_log import ItemLog
from recsys.store.sqlite_item_log import SqliteItemLog
from recsys.store.sqlite_store import SqliteStore

SQLITE = re.compile(r"sqlite://(?:/(?P<path>.+))?")
REDIS = re.compile(r"rediss?://([^:@/?#]+@)?([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?(/\d+)?")


def open_store(
    config: StoreConfig, password: str | None = None, now: Callable[[], float] = time.time
) -> HistoryStore:
    """The store at `config.url`; `password` is for Redis, and `now` tells the Unix time.

    A server need not answer yet, and what it does later is told by every call.

    Raises:
        ValueError: the URL is of no known form, or holds a password.
        StoreUnavailable: a file cannot be opened or is no database.
    """
    if found := SQLITE.fullmatch(config.url):
        return SqliteStore(found["path"] or ":memory:", config, now)
    if REDIS.fullmatch(config.url):
        # Here, since a store in a file needs no client.
        from recsys.store.redis_store import RedisStore

        return RedisStore(config.url, config, password, now)
    raise ValueError(_advice("store.url"))


def open_item_log(
    config: ItemLogConfig, password: str | None = None, now: Callable[[], float] = time.time
) -> ItemLog:
    """The log at `config.url`; see `open_store`.

    Raises:
        ValueError: the URL is of no known form, or holds a password.
        StoreUnavailable: a file cannot be opened or is no database.
    """
    if found := SQLITE.fullmatch(config.url):
        return SqliteItemLog(found["path"] or ":memory:", config, now)
    if REDIS.fullmatch(config.url):
        from recsys.store.redis_item_log import RedisItemLog

        return RedisItemLog(config.url, config, password, now)
    raise ValueError(_advice("items.url"))


def _advice(setting: str) -> str:
    # The URL is left out: what is wrong with it may be a password in it.
    return (
        f"{setting} cannot be used: write sqlite:///path, sqlite:// or redis://user@host:6379/0; "
        "a password is given apart, never in the URL"
    )

"""Changes of items in Redis 6.2 or newer, for many replicas on many machines.

Three keys, whose braces put them into one slot of a cluster:

- `recsys:{items}:order`: a sorted set of item ids by the number of their last change;
- `recsys:{items}:rows`: a hash from item id to JSON;
- `recsys:{items}:number`: the last number.

The server must keep its data (`appendonly yes`), or changes are gone when it starts again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from recsys.config import ItemLogConfig
from recsys.store.item_log import (
    MICROSECONDS,
    PURGED_AT_ONCE,
    ItemChange,
    ItemRow,
    oldest_number,
    to_json,
)
from recsys.store.redis_client import RedisClient

KEYS = [f"recsys:{{items}}:{name}" for name in ("order", "rows", "number")]

# Numbers of some 2e15 are whole in the doubles of Lua and of scores, which hold 9e15.
APPEND = """
local order, rows, last = KEYS[1], KEYS[2], KEYS[3]
local number = math.max(tonumber(redis.call('GET', last) or 0) + 1, tonumber(ARGV[1]))
number = string.format('%.0f', number)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', '(' .. ARGV[2],
                                'LIMIT', 0, ARGV[3])) do
    redis.call('ZREM', order, old)
    redis.call('HDEL', rows, old)
end
redis.call('SET', last, number)
redis.call('ZADD', order, number, ARGV[4])
redis.call('HSET', rows, ARGV[4], ARGV[5])
return number
"""
AFTER = """
local told = {}
for n, item in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf',
                                 'LIMIT', 0, ARGV[2])) do
    local score = tonumber(redis.call('ZSCORE', KEYS[1], item))
    told[n] = {string.format('%.0f', score), item, redis.call('HGET', KEYS[2], item)}
end
return told
"""


class RedisItemLog:
    """An `ItemLog` behind a URL without a password; nothing is connected before the first call.

    `now` tells the Unix time.
    """

    def __init__(
        self,
        url: str,
        config: ItemLogConfig,
        password: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._now = config, now
        self._server = RedisClient("item log", "items", url, config.timeout_s, password)
        self._append = self._server.redis.register_script(APPEND)
        self._after = self._server.redis.register_script(AFTER)

    def append(self, item_id: str, row: ItemRow | None) -> int:
        """See `ItemLog`."""
        now = int(self._now() * MICROSECONDS)
        with self._server.errors():
            number: Any = self._append(
                KEYS, [now, self._cutoff(), PURGED_AT_ONCE, item_id, to_json(row)]
            )
        return int(number)

    def after(self, number: int, count: int) -> list[ItemChange]:
        """See `ItemLog`."""
        first = max(number, self._cutoff() - 1)
        with self._server.errors():
            rows: Any = self._after(KEYS, [first, count])
        return [ItemChange(int(n), item_id, json.loads(content)) for n, item_id, content in rows]

    def close(self) -> None:
        """See `ItemLog`."""
        self._server.redis.close()

    def _cutoff(self) -> int:
        return oldest_number(self._now(), self._config.keep_days)

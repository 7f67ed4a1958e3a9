"""Histories in Redis 6.2 or newer, for many replicas on many machines.

A user has three keys, which go together when the newest event is too old:

- `recsys:{user}:events`: a sorted set by time of `<number><json>`, where the number of 16 digits
  counts what was added, so that events of one second keep their order;
- `recsys:{user}:ids`: the set of their event ids;
- `recsys:{user}:state`: a hash of `version`, `number`, and `pushed_out`, the time of the newest
  event that had to go.

The braces put the three into one slot of a cluster. Each call is one round trip.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from recsys.config import StoreConfig
from recsys.store.histories import Appended, StoredEvent, StoreUnavailable, oldest_kept
from recsys.store.redis_client import RedisClient

NUMBER_DIGITS = 16

# In `told`, 0 is added, 1 is a duplicate and 2 is outdated.
APPEND = """
local events, ids, state = KEYS[1], KEYS[2], KEYS[3]
local cutoff, max_events, version = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

local function drop(members)
    for _, member in ipairs(members) do
        redis.call('SREM', ids, cjson.decode(string.sub(member, 17))[1])
        redis.call('ZREM', events, member)
    end
end

drop(redis.call('ZRANGEBYSCORE', events, '-inf', '(' .. ARGV[1]))
local newest_refused = math.max(
    cutoff - 1, tonumber(redis.call('HGET', state, 'pushed_out') or -1))

local told, places = {}, {}
for n = 4, #ARGV, 3 do
    local id, timestamp, content = ARGV[n], ARGV[n + 1], ARGV[n + 2]
    if redis.call('SISMEMBER', ids, id) == 1 then
        told[#told + 1] = 1
    elseif tonumber(timestamp) <= newest_refused then
        told[#told + 1] = 2
    else
        local number = redis.call('HINCRBY', state, 'number', 1)
        local member = string.format('%016.0f', number) .. content
        redis.call('ZADD', events, timestamp, member)
        redis.call('SADD', ids, id)
        told[#told + 1] = 0
        places[member] = #told
    end
end

local above = redis.call('ZCARD', events) - max_events
if above > 0 then
    local oldest = redis.call('ZRANGE', events, 0, above - 1)
    redis.call('HSET', state, 'pushed_out', redis.call('ZSCORE', events, oldest[above]))
    drop(oldest)
    for _, member in ipairs(oldest) do
        if places[member] then told[places[member]] = 2 end
    end
end

for _, what in ipairs(told) do
    if what == 0 then redis.call('HSET', state, 'version', version) break end
end
local newest = redis.call('ZRANGE', events, -1, -1, 'WITHSCORES')[2]
if newest then
    for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, newest - cutoff + 1) end
end
return told
"""


class RedisStore:
    """A `HistoryStore` behind a URL without a password, `redis://user@host:6379/0`.

    Nothing is connected before the first call. `now` tells the Unix time.
    """

    def __init__(
        self,
        url: str,
        config: StoreConfig,
        password: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._now = config, now
        self._server = RedisClient("history store", "store", url, config.timeout_s, password)
        self._redis = self._server.redis
        self._append = self._redis.register_script(APPEND)

    def append(self, user_id: str, events: Sequence[StoredEvent]) -> Appended:
        """See `HistoryStore`. Where an answer gets lost, added events are told as duplicates."""
        arguments: list[str | int] = []
        for event in events:
            arguments += [event.event_id, event.timestamp, _to_json(event)]
        with self._server.errors():
            kinds: Any = self._append(
                _keys(user_id),
                [self._cutoff(), self._config.max_events, secrets.token_hex(8), *arguments],
            )
        return Appended.of(events, kinds)

    def last(self, user_id: str, count: int) -> list[StoredEvent]:
        """See `HistoryStore`."""
        with self._server.errors():
            rows: Any = self._redis.zrange(
                _keys(user_id)[0],
                "+inf",  # pyright: ignore[reportArgumentType]
                self._cutoff(),
                desc=True,
                withscores=True,
                byscore=True,
                offset=0,
                num=count,
            )
        return [_from_member(member, score) for member, score in reversed(rows)]

    def version(self, user_id: str) -> str:
        """See `HistoryStore`."""
        events, _, state = _keys(user_id)
        with self._server.errors(), self._redis.pipeline() as pipeline:
            pipeline.zcount(events, self._cutoff(), "+inf")
            pipeline.hget(state, "version")
            count, version = pipeline.execute()
        return version if count else ""

    def delete(self, user_id: str) -> int:
        """See `HistoryStore`."""
        keys = _keys(user_id)
        with self._server.errors(), self._redis.pipeline() as pipeline:
            pipeline.zcount(keys[0], self._cutoff(), "+inf")
            pipeline.delete(*keys)
            deleted, _ = pipeline.execute()
        return deleted

    def healthy(self) -> bool:
        """See `HistoryStore`."""
        try:
            with self._server.errors():
                return bool(self._redis.ping())
        except StoreUnavailable:
            return False

    def close(self) -> None:
        """See `HistoryStore`."""
        self._redis.close()

    def _cutoff(self) -> int:
        return oldest_kept(self._now(), self._config.ttl_days)


def _keys(user_id: str) -> list[str]:
    return [f"recsys:{{{user_id}}}:{name}" for name in ("events", "ids", "state")]


def _to_json(event: StoredEvent) -> str:
    content = [event.event_id, event.item_id, event.event, event.value]
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _from_member(member: str, score: float) -> StoredEvent:
    event_id, item_id, event, value = json.loads(member[NUMBER_DIGITS:])
    return StoredEvent(event_id, item_id, int(score), event, value)

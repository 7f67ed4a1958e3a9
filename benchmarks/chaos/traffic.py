"""Steady traffic that notes every answer, and a judge that knows what each version answers."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import aiohttp
import numpy as np

from recsys.artifact import open_artifact
from recsys.engine.recommender import Event, Query, Recommender

TOP_K, BODIES = 10, 64
TIMEOUT_S = 15


@dataclass(frozen=True)
class Seen:
    """One request: when it was sent and answered (Unix seconds), and how; status 0 is no answer."""

    sent: float
    answered: float
    status: int
    body: int
    version: str = ""
    items: tuple[str, ...] = ()
    retry_after: bool = False

    @property
    def ok(self) -> bool:
        """Answered with items."""
        return self.status == 200


class Judge:
    """What each version answers to each body; versions are (checkpoint, index) by their digests."""

    def __init__(self, checkpoint: str, indexes: Sequence[str]) -> None:
        opened = open_artifact(checkpoint, "checkpoint")
        ids = open_artifact(indexes[0], "index").read_table("items.parquet")["item_id"].to_pylist()
        chosen = random.Random(0)
        self.histories = [chosen.sample(ids, k=chosen.randint(1, 12)) for _ in range(BODIES)]
        self._right: dict[str, list[set[tuple[str, ...]]]] = {}
        for place in indexes:
            index = open_artifact(place, "index")
            recommender = Recommender.load(opened, index, filter_seen=True)
            queries = [Query([Event(i) for i in h], TOP_K) for h in self.histories]
            answers = recommender.recommend(queries)
            right = self._right.setdefault(opened.digest, [set() for _ in self.histories])
            for row, answer in enumerate(answers):
                right[row].add(tuple(item.item_id for item in answer.items))

    def wrong(self, seen: Sequence[Seen]) -> int:
        """Answers that no version gives."""
        return sum(
            one.items not in self._right.get(one.version, [set()] * BODIES)[one.body]
            for one in seen
            if one.ok
        )


class Traffic:
    """Requests at a steady rate, whoever answers, until it is left."""

    def __init__(self, url: str, judge: Judge, rate: float) -> None:
        self._url, self._judge, self._rate = url, judge, rate
        self._seen: list[Seen] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()))

    def __enter__(self) -> Self:
        """Start sending."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seen(self) -> list[Seen]:
        """Every request that has ended, in the order of sending."""
        return sorted(self._seen, key=lambda one: one.sent)

    async def _send(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            waiting: set[asyncio.Task] = set()
            started, number = time.monotonic(), 0
            while not self._stop.is_set():
                task = asyncio.create_task(self._ask(session, number % BODIES))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                number += 1
                await asyncio.sleep(max(0.0, started + number / self._rate - time.monotonic()))
            if waiting:
                await asyncio.wait(waiting)

    async def _ask(self, session: aiohttp.ClientSession, body: int) -> None:
        sent = time.time()
        asked = {"history": self._judge.histories[body], "top_k": TOP_K}
        try:
            async with session.post(self._url, json=asked) as response:
                content, status = await response.read(), response.status
                retry = "Retry-After" in response.headers
        except (aiohttp.ClientError, TimeoutError):
            self._seen.append(Seen(sent, time.time(), 0, body))
            return
        answer = json.loads(content) if status == 200 else {}
        items = tuple(item["item_id"] for item in answer.get("items", []))
        version = answer.get("model_version", "")
        self._seen.append(Seen(sent, time.time(), status, body, version, items, retry))


def signs(seen: Sequence[Seen], injected: float) -> tuple[float | None, float | None]:
    """Seconds from the injection to the end of the first and of the last request that failed."""
    failed = [one.answered - injected for one in seen if not one.ok and one.answered > injected]
    return (min(failed), max(failed)) if failed else (None, None)


def p99_ms(seen: Sequence[Seen]) -> float:
    """Of the requests that were answered with items; 0 where there were none."""
    took = [one.answered - one.sent for one in seen if one.ok]
    return round(1e3 * float(np.percentile(took, 99)), 1) if took else 0.0


def rate(seen: Sequence[Seen], start: float, end: float) -> float:
    """Answers with items a second, of those that came in a span of time."""
    return sum(one.ok and start <= one.answered < end for one in seen) / (end - start)

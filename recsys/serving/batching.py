"""Requests of one moment are answered in one forward pass."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ray import serve

from recsys.config import ServeArgs
from recsys.engine.recommender import Query
from recsys.serving.service import Waiting

FULL = 1_000
"""The size of a full batch, in thousandths of itself: whole numbers are all that Ray compares."""

T = TypeVar("T")


def fullness(queries: Sequence[Query], args: ServeArgs) -> int:
    """How full a batch of these is, in thousandths.

    It is full at `max_batch_size` queries or at `max_batch_events` events, padding included: a few
    long histories cost as much as many short ones. One query alone fills it at most, since Ray
    refuses a first one that is larger than a batch.
    """
    longest = max(len(query.history) for query in queries)
    by_count = len(queries) / args.max_batch_size
    by_events = len(queries) * longest / args.max_batch_events
    share = max(by_count, by_events)
    return math.ceil(FULL * (min(share, 1.0) if len(queries) == 1 else share))


def batched(
    answer: Callable[[Sequence[Waiting]], list[T]], args: ServeArgs
) -> Callable[[Waiting], Awaitable[T]]:
    """`answer`, one query at a time: those that wait together are computed together."""

    @serve.batch(  # pyright: ignore
        max_batch_size=FULL,
        batch_wait_timeout_s=args.batch_wait_timeout_s,
        batch_size_fn=lambda waiting: fullness([one.query for one in waiting], args),
    )
    async def together(waiting: list[Waiting]) -> list[T]:
        # In a thread, so that the next requests are read while this batch is computed.
        return await asyncio.to_thread(answer, waiting)

    return together  # pyright: ignore

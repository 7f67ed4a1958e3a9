"""No request takes longer than its deadline."""

from __future__ import annotations

import asyncio
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.serving.security.refusal import Refusal

HEADER = "X-Request-Timeout-Ms"
MILLISECONDS = re.compile(r"[0-9]{1,9}")


class Deadline:
    """Cancels what is below when time is up: 408 if the body was awaited, else 504.

    `state["deadline"]` is the time of the running loop at which that happens.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app, self._timeout_s = app, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        state = scope["state"]
        allowed = min(self._timeout_s, _asked_s(Headers(scope=scope)))
        state["deadline"] = asyncio.get_running_loop().time() + allowed
        try:
            async with asyncio.timeout_at(state["deadline"]) as limit:
                await self._app(scope, receive, send)
        except TimeoutError as error:
            if not limit.expired():
                raise
            if state.get("awaits_body"):
                raise Refusal(408, "the body did not come in time", "slow body") from error
            raise Refusal(504, f"no answer within {allowed:g} s", "deadline") from error


def _asked_s(headers: Headers) -> float:
    """Seconds the client will wait; without its header, forever."""
    given = headers.get(HEADER)
    if given is None:
        return float("inf")
    if not MILLISECONDS.fullmatch(given) or not int(given):
        raise Refusal(400, f"{HEADER} must be whole milliseconds, 1 or more", "timeout header")
    return int(given) / 1e3

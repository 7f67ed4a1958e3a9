"""How often a caller may ask, and how many requests there may be at a time."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.config.security import RateConfig
from recsys.serving.security.buckets import Buckets
from recsys.serving.security.refusal import too_many

BUSY_WAIT_S = 1.0
"""When to come back to a service that is full; a request takes far less."""


class CallerRates:
    """A bucket for each caller. Public paths have no caller and no rate."""

    def __init__(self, app: ASGIApp, config: RateConfig, buckets: Buckets) -> None:
        self._app, self._config, self._buckets = app, config, buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if principal := scope["state"].get("principal"):
            rate = principal.rate_per_s or self._config.per_key_s
            burst = max(1.0, rate * self._config.burst_s)
            if wait := self._buckets.take(principal.name, rate, burst):
                raise too_many(f"more than {rate:g} requests a second", "rate", wait)
        await self._app(scope, receive, send)


class InProgress:
    """Refuses at once what would only wait: a full service answers those it has, on time."""

    def __init__(self, app: ASGIApp, max_in_progress: int) -> None:
        self._app, self._max, self._count = app, max_in_progress, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if "principal" not in scope["state"]:  # a public path: a full service is still alive
            await self._app(scope, receive, send)
            return
        if self._count >= self._max:
            raise too_many("the service is busy", "busy", BUSY_WAIT_S)
        self._count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._count -= 1

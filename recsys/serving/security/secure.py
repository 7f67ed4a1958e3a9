"""All layers of safety around an application, in their order."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.config import SecurityConfig
from recsys.serving.security.answer_headers import AnswerHeaders
from recsys.serving.security.authentication import Authentication
from recsys.serving.security.buckets import Buckets
from recsys.serving.security.credentials import Credentials
from recsys.serving.security.deadline import HEADER, Deadline
from recsys.serving.security.faults import Faults
from recsys.serving.security.rates import CallerRates, InProgress
from recsys.serving.security.requests import Requests
from recsys.serving.security.sizes import Body, HeaderSize

POLICY_VIOLATION = 1008
"""RFC 6455, 7.4.1."""


def utc_now() -> datetime.datetime:
    """The time by which keys expire."""
    return datetime.datetime.now(datetime.UTC)


def secure(
    app: ASGIApp,
    config: SecurityConfig,
    *,
    keys: str | None = None,
    token_key: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime.datetime] = utc_now,
) -> ASGIApp:
    """An application that only those reach who may.

    `keys` is the text of a file of keys and `token_key` that of a secret or a public key, for those
    who have them in their environment instead of files. `clock` counts seconds.

    A request goes through these layers, from the outside:

    1. `Requests`: its id and its log line; outermost, so that nothing is answered without both.
    2. `AnswerHeaders`: headers of safety; outside all that may answer.
    3. CORS, if origins are allowed: outside authentication, as a browser asks first and without
       the key, and as a page must be able to read a 401.
    4. `Faults`: refusals and exceptions of all that is below become answers.
    5. `HeaderSize`: before anything reads a header.
    6. `Authentication`: who calls, and whether the path's scope is theirs. Before all that costs
       something, so that a stranger costs nothing.
    7. `CallerRates`: needs the caller. Before the places are given out, so that one caller's flood
       does not take those of the others.
    8. `InProgress`: a place for the time of all that is below, the body too.
    9. `Deadline`: counts the body and the handler.
    10. `Body`: reads it, within size and time, before the handler runs.

    Raises:
        ValueError: nobody could come in, or a key or file of keys is not one, and what to do.
    """
    credentials = None
    if config.require_auth:
        credentials = Credentials(config, keys, token_key, clock, now)
    elif keys is not None or token_key is not None:
        raise ValueError("security.require_auth is false and there are keys: take one of them out")
    limits, rates = config.limits, config.rates
    inner: ASGIApp = Deadline(Body(app, limits), limits.timeout_s)
    inner = InProgress(inner, limits.max_in_progress)
    inner = CallerRates(inner, rates, Buckets(rates.max_callers, clock))
    inner = Authentication(inner, config, credentials, Buckets(rates.max_callers, clock))
    inner = Faults(HeaderSize(inner, limits.max_header_bytes))
    if config.cors_origins:
        inner = _with_cors(inner, config.cors_origins)
    return _OnlyHttp(Requests(AnswerHeaders(inner)), app)


def _with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "X-API-Key", "Content-Type", "X-Request-Id", HEADER),
        expose_headers=("X-Request-Id", "Retry-After"),
    )


class _OnlyHttp:
    """Requests go the secured way, start and stop to the application; there is nothing else."""

    def __init__(self, secured: ASGIApp, app: ASGIApp) -> None:
        self._secured, self._app = secured, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._secured(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})

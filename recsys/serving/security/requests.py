"""The outermost layer: a request's id, and one line of access log for it."""

from __future__ import annotations

import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.serving.logs import log_access

SANE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CLIENT_GONE = 499
"""What nginx logs where nobody waited for the answer."""


class Requests:
    """Gives a request its `state`, which the layers below fill, and logs it when it is over.

    The line has no path but the route's pattern, no query and no body: users and items stand there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        started = time.perf_counter()
        # A dict of this request alone: a server may hand the same one to all.
        state = scope["state"] = dict(scope.get("state") or {})
        state["request_id"] = request_id(Headers(scope=scope))
        status = CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = state["request_id"]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            log_access(scope, status, time.perf_counter() - started)


def request_id(headers: Headers) -> str:
    """The client's id of the request, if it is sane, else a new one."""
    given = headers.get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else uuid.uuid4().hex

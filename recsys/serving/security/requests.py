"""The outermost layer: a request's id, and one line of access log for it."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SANE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
CLIENT_GONE = 499
"""What nginx logs where nobody waited for the answer."""

log = logging.getLogger("recsys.serving.access")


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
            log.info(access_line(scope, status, time.perf_counter() - started))


def request_id(headers: Headers) -> str:
    """The client's id of the request, if it is sane, else a new one."""
    given = headers.get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else uuid.uuid4().hex


def access_line(scope: Scope, status: int, seconds: float) -> str:
    """What is logged of a request, as JSON.

    `route` is null where no route was reached, `refused` says why a layer did not let it.
    """
    state = scope["state"]
    principal = state.get("principal")
    line = {
        "request_id": state["request_id"],
        "method": scope["method"] if scope["method"] in METHODS else "other",
        "route": getattr(scope.get("route"), "path", None),
        "status": status,
        "ms": round(1e3 * seconds, 1),
        "key": principal.name if principal else None,
        "refused": state.get("refused"),
    }
    return json.dumps(line)

"""No request is larger than it may be, and no body is sent drop by drop."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.config.security import LimitConfig
from recsys.serving.security.refusal import Refusal


class HeaderSize:
    """Refuses long headers before anything reads them."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        size = len(scope["path"]) + len(scope.get("query_string", b""))
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._max_bytes:
            raise Refusal(431, f"path and headers are over {self._max_bytes} bytes", "header size")
        await self._app(scope, receive, send)


class Body:
    """Reads the body as a whole before the application starts.

    Routes take JSON, which they read as a whole anyway; so a bad body never reaches one, and memory
    is bounded by `max_body_bytes` times the requests in progress.
    """

    def __init__(self, app: ASGIApp, config: LimitConfig) -> None:
        self._app, self._config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        state = scope["state"]
        self._check_length(Headers(scope=scope).getlist("content-length"))
        state["awaits_body"] = True
        body = await self._read(receive)
        state["awaits_body"] = False
        if body is None:
            state["refused"] = "client gone"
            return
        await self._app(scope, _replayed(body, receive), send)

    def _check_length(self, lengths: list[str]) -> None:
        if not lengths:
            return
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refusal(400, "Content-Length is not one number", "content length")
        # By digits first: Python refuses to read numbers of thousands of them.
        digits = lengths[0].lstrip("0") or "0"
        if len(digits) > 18 or int(digits) > self._config.max_body_bytes:
            raise self._too_large()

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None if the client went away."""
        body = bytearray()
        while True:
            message = await self._next(receive)
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._config.max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    async def _next(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._config.body_chunk_timeout_s):
                return await receive()
        except TimeoutError as error:
            raise Refusal(408, "the body did not come in time", "slow body") from error

    def _too_large(self) -> Refusal:
        told = f"the body is larger than {self._config.max_body_bytes} bytes"
        return Refusal(413, told, "body size")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for the application: the body at once, then what the server says."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again

"""A small application behind the layers of safety, and a client that may send anything."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, FastAPI, Request
from starlette.types import ASGIApp, Message

from recsys.config import SecurityConfig
from recsys.serving.problems import install_problems
from recsys.serving.security.keys import KeyFile, KeyRecord, hash_of
from recsys.serving.security.secure import secure

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
SECRET_USER = "alice-7731"
KEYS = {
    scope: f"rk_{scope}_abcdefghijklmnopqrstuvwxyz0123456789"
    for scope in ("read", "events", "admin")
}
KEY_FILE = KeyFile(
    keys=tuple(
        KeyRecord.model_validate(
            {"name": f"the-{scope}", "sha256": hash_of(key), "scopes": [scope]}
        )
        for scope, key in KEYS.items()
    )
)


class Application:
    """Routes as the service has them, what they saw, and one that waits until it is let go."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.bodies: list[bytes] = []
        self.cancelled = 0
        self.go = asyncio.Event()
        self.started = False
        self.fastapi = FastAPI(lifespan=self._lifespan)
        install_problems(self.fastapi)
        self.fastapi.include_router(self._routes())

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.started = True
        yield

    def _routes(self) -> APIRouter:
        router = APIRouter()
        wanted = ["/", "/page/{name}", "/v1/model", "/health/live", "/health/ready"]
        for path in [*wanted, "/v1/items/{item_id:path}"]:
            router.add_api_route(path, self._see, methods=["GET"])
        for path in ["/v1/recommend", "/v1/events"]:
            router.add_api_route(path, self._see, methods=["POST"])
        router.add_api_route("/v1/users/{user_id:path}", self._see, methods=["DELETE"])
        router.add_api_route("/v1/rank", self._wait, methods=["POST"])
        router.add_api_route("/v1/batch", self._fail, methods=["POST"])
        return router

    async def _see(self, request: Request) -> dict[str, Any]:
        self.reached.append(request.url.path)
        self.bodies.append(await request.body())
        principal = getattr(request.state, "principal", None)
        return {"caller": principal.name if principal else None, "id": request.state.request_id}

    async def _wait(self) -> dict[str, str]:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"status": "done"}

    async def _fail(self, request: Request) -> None:
        try:
            int(f"history of {SECRET_USER}: {await request.body()!r}")
        except ValueError as error:
            raise RuntimeError(f"no answer for {SECRET_USER}") from error


@dataclass
class Answer:
    """What came back."""

    status: int | None
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


def secured(application: Application, /, **fields: Any) -> ASGIApp:
    """The application behind all layers, with the keys of `KEYS`."""
    given = {"keys": KEY_FILE.model_dump_json(), "now": lambda: NOW}
    given |= {name: fields.pop(name) for name in ("keys", "clock", "token_key") if name in fields}
    return secure(application.fastapi, SecurityConfig(**fields), **given)


def http_scope(method: str, target: str, headers: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A scope as a server makes it from a request line; nothing of the path is tidied."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(n.lower().encode(), v.encode("latin-1")) for n, v in headers.items()],
        "client": ("192.0.2.1", 5000),
        **changes,
    }


async def call(
    app: ASGIApp,
    method: str,
    target: str,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    body: Iterable[bytes] = (b"",),
    **changes: Any,
) -> Answer:
    """One request; after the parts of `body` the client is silent and waits."""
    sent = dict(headers or {}) | ({"Authorization": f"Bearer {key}"} if key else {})
    parts = list(body)
    answer = Answer(None, {}, b"")

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        answer.body += message.get("body", b"")

    await app(http_scope(method, target, sent, **changes), receive, send)
    return answer


def ask(app: ASGIApp, method: str, target: str, key: str | None = None, **more: Any) -> Answer:
    """`call` in a loop of its own."""
    return asyncio.run(call(app, method, target, key, **more))

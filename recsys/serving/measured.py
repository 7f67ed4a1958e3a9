"""The layer around everything: how each request of a user in an experiment ended, for the log.

Outermost, so that the time is the one a client waits for and a refusal or fault has its status.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.experiments.requests import rows_of
from recsys.serving.security.requests import CLIENT_GONE
from recsys.store.feedback import FeedbackLog, FeedbackRefused

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked: their variant by experiment, none for nobody in particular, and the model that was
    to answer."""

    user_id: str | None
    variants: Mapping[str, str]
    release: str


class Measured:
    """Logs status and time of requests whose state names one user in an experiment."""

    def __init__(self, app: ASGIApp, feedback: FeedbackLog | None) -> None:
        self._app, self._feedback = app, feedback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or self._feedback is None:
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), CLIENT_GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            _log(self._feedback, scope, status, time.perf_counter() - started)


def _log(feedback: FeedbackLog, scope: Scope, status: int, seconds: float) -> None:
    state = scope.get("state", {})
    asked: list[Asked] = state.get("asked", [])
    if len(asked) != 1 or not asked[0].variants:
        return
    [one] = asked
    assert one.user_id is not None
    release = state.get("release", one.release)
    route = getattr(scope.get("route"), "path", None)
    ended = (release, route, status, seconds, state.get("num_items"))
    try:
        feedback.append_requests(rows_of(state["request_id"], one.user_id, one.variants, *ended))
    except FeedbackRefused as error:
        log.error("how a request ended is not logged: %s", error)

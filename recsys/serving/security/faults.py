"""Refusals and faults become problem bodies; a fault is logged by its type and place."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.serving.problems import FAULT, problem
from recsys.serving.security.refusal import Refusal

log = logging.getLogger(__name__)


class Faults:
    """Answers for the layers below when they raise.

    Where an answer has begun, nothing more is sent: the server breaks the connection, by which the
    client knows that the answer is not whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
            return
        except Refusal as refusal:
            scope["state"]["refused"] = refusal.reason
            answer = problem(refusal.status, refusal.detail, refusal.headers)
        except Exception as error:  # noqa: BLE001 - the last place before the server
            log.error("request %s failed: %s", scope["state"]["request_id"], describe_fault(error))
            answer = problem(500, FAULT)
        if not has_begun:
            await answer(scope, receive, send)


def describe_fault(error: BaseException) -> str:
    """Types and places of an error and what caused it, newest first.

    Not their messages: an error about a value quotes it, and values here are users and histories.
    """
    return "\ncaused by ".join(
        f"{type(each).__module__}.{type(each).__qualname__}\n"
        + "".join(traceback.format_tb(each.__traceback__)).rstrip()
        for each in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)

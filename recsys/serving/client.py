"""A client of the service: a method for each route, typed by the models that the routes take.

It needs neither Ray nor torch: `pip install 'recsys[client]'`.

    with RecommenderClient("https://recsys.example", key) as client:
        answer = client.recommend(RecommendRequest(user_id="u-17", top_k=10))
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from recsys.serving.api.requests import (
    BatchRequest,
    EventsRequest,
    FeedbackEvent,
    RankRequest,
    RecommendRequest,
    RequestModel,
    SearchRequest,
    SimilarItemsRequest,
)
from recsys.serving.api.responses import (
    BatchResponse,
    EventsResponse,
    ForgottenResponse,
    ItemResponse,
    ModelResponse,
    Problem,
    RecommendResponse,
    SearchResponse,
    SuggestResponse,
)

TIMEOUT_S = 10.0
"""As the service gives a request up (`security.limits.timeout_s`)."""
ATTEMPTS = 3
LATER = (429, 503)
"""The service did nothing, and says when to come again."""
MAX_WAIT_S = 30.0
"""A longer `Retry-After` is for the caller to decide."""

Model = TypeVar("Model", bound=BaseModel)


class ProblemError(Exception):
    """The service answered with a problem (RFC 9457)."""

    def __init__(
        self, status: int, title: str, detail: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status, self.title, self.detail = status, title, detail
        self.retry_after_s = retry_after_s


class RecommenderClient:
    """Asks one service. Threads may share it.

    What is answered 429 or 503 is asked again, up to `ATTEMPTS` times in all, when the answer says:
    nothing was done, and every route may be asked twice; events, because each has an id. An answer
    that does not come in `timeout_s` raises `httpx2.TimeoutException`, and one from something that
    is not this service `ProblemError`.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        http: httpx2.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`http` is asked in place of a client of its own, and keeps its own timeout.

        `sleep` is how to wait between two attempts.
        """
        self._http = http or httpx2.Client(base_url=base_url, timeout=timeout_s)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._retrying = Retrying(
            retry=retry_if_exception(_is_worth_waiting),
            wait=_wait,
            stop=stop_after_attempt(ATTEMPTS),
            reraise=True,
            sleep=sleep,
        )

    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """Items for a user."""
        return self._post("/v1/recommend", request, RecommendResponse)

    def batch(self, requests: Sequence[RecommendRequest]) -> list[RecommendResponse]:
        """Items for many users, in the order of the requests."""
        request = BatchRequest(requests=list(requests))
        return self._post("/v1/batch", request, BatchResponse).answers

    def rank(self, request: RankRequest) -> RecommendResponse:
        """Given items in order."""
        return self._post("/v1/rank", request, RecommendResponse)

    def similar_items(self, request: SimilarItemsRequest) -> RecommendResponse:
        """Items nearest to an item."""
        return self._post("/v1/similar_items", request, RecommendResponse)

    def search(self, request: SearchRequest) -> SearchResponse:
        """Items that fit a text."""
        return self._post("/v1/search", request, SearchResponse)

    def suggest(self, text: str, top_k: int = 8) -> SuggestResponse:
        """How a text that is being typed may go on."""
        params = {"text": text, "top_k": top_k}
        return self._ask("GET", "/v1/suggest", SuggestResponse, params=params)

    def send_events(self, events: Sequence[FeedbackEvent]) -> EventsResponse:
        """Remember events; those without an id are given one."""
        named = [
            event if event.event_id else event.model_copy(update={"event_id": uuid.uuid4().hex})
            for event in events
        ]
        return self._post("/v1/events", EventsRequest(events=named), EventsResponse)

    def forget(self, user_id: str) -> ForgottenResponse:
        """Delete a user's history; takes a key with the scope `admin`."""
        return self._ask("DELETE", f"/v1/users/{quote(user_id, safe='')}", ForgottenResponse)

    def item(self, item_id: str) -> ItemResponse:
        """What is known of an item."""
        return self._ask("GET", f"/v1/items/{quote(item_id, safe='')}", ItemResponse)

    def model(self) -> ModelResponse:
        """Which model answers."""
        return self._ask("GET", "/v1/model", ModelResponse)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _post(self, path: str, request: RequestModel, answer: type[Model]) -> Model:
        body = request.model_dump(mode="json", exclude_unset=True)
        return self._ask("POST", path, answer, json=body)

    def _ask(self, method: str, path: str, answer: type[Model], **sent: Any) -> Model:
        return self._retrying(self._ask_once, method, path, answer, **sent)

    def _ask_once(self, method: str, path: str, answer: type[Model], **sent: Any) -> Model:
        response = self._http.request(method, path, headers=self._headers, **sent)
        if not response.is_success:
            raise _problem(response)
        return answer.model_validate_json(response.content)


def _problem(response: httpx2.Response) -> ProblemError:
    status = response.status_code
    given = response.headers.get("Retry-After", "")
    wait_s = float(given) if given.isdigit() else None  # as the service tells it; not as a date
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy before the service has answered
        title = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown"
        return ProblemError(status, title, "the answer is not the service's", wait_s)
    return ProblemError(status, problem.title, problem.detail, wait_s)


def _is_worth_waiting(error: BaseException) -> bool:
    if not isinstance(error, ProblemError) or error.status not in LATER:
        return False
    return (error.retry_after_s or 0.0) <= MAX_WAIT_S


def _wait(state: RetryCallState) -> float:
    """As long as was said, and up to a second by chance, so that clients do not come together."""
    assert state.outcome is not None
    error = state.outcome.exception()
    told = error.retry_after_s if isinstance(error, ProblemError) else None
    return (told or 0.0) + wait_random_exponential(multiplier=0.5, max=1.0)(state)

"""The description of the routes is true: whatever is asked is answered as it says, without 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode, checks
from schemathesis.python import asgi
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.config import FeedbackConfig, ItemLogConfig, SecurityConfig, ServeArgs, StoreConfig
from recsys.config.security import RateConfig
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.serving.security.key_file import add_key
from recsys.serving.security.keys import make_key
from recsys.serving.security.secure import utc_now
from tests.serving.conftest import make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
EXAMPLES = {GenerationMode.POSITIVE: 10, GenerationMode.NEGATIVE: 5}
TRUE = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
GENERATED = [
    "POST /v1/recommend",
    "POST /v1/batch",
    "POST /v1/rank",
    "POST /v1/search",
    "GET /v1/suggest",
    "POST /v1/similar_items",
    "GET /v1/items/{item_id}",
    "PUT /v1/items/{item_id}",
    "DELETE /v1/items/{item_id}",
    "POST /v1/events",
    "DELETE /v1/users/{user_id}",
]
PLAIN = ["GET /v1/model", "GET /health/live", "GET /health/ready"]


class Known(NamedTuple):
    """An application, who asks it, and the key to all of it."""

    app: ASGIApp
    client: asgi.ASGIClient
    key: dict[str, str]

    def ask(self, case: Case, headers: dict[str, str]) -> int:
        """The status of the answer to a case, after it was held against the description."""
        answer = case.call(app=self.app, session=self.client, headers=headers)
        case.validate_response(answer, checks=TRUE, headers=headers)
        return answer.status_code


@pytest.fixture(scope="module")
def known(toy_args: ServeArgs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A service with all it can have, safety included."""
    folder = tmp_path_factory.mktemp("openapi")
    key, record = make_key("all", "read,events,items,admin", utc_now())
    add_key(folder / "keys.json", record)
    often = RateConfig(per_key_s=1e6, failed_auth_burst=1_000)
    changed = {
        "security": SecurityConfig(keys_file=str(folder / "keys.json"), rates=often),
        "store": StoreConfig(url="sqlite://"),
        "feedback": FeedbackConfig(uri=str(folder / "feedback"), spool=str(folder / "spool")),
    }
    changed["items"] = ItemLogConfig(url="sqlite://")
    args = toy_args.model_copy(update=changed)
    service = make_service(args, Models.load(args))
    inner = build_http(service)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # schemathesis would stop the service after each test
            await inner(scope, receive, send)

    with asgi.get_client(app) as client:
        yield Known(app, client, {"Authorization": f"Bearer {key}"})
    service.close()


@pytest.fixture(scope="module")
def operations(known: Known) -> dict[str, Any]:
    """What is described, by method and path."""
    described = known.client.get("/openapi.json", headers=known.key).json()
    found = schemathesis.openapi.from_dict(described).get_all_operations()
    return {operation.label: operation for operation in (made.ok() for made in found)}


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    assert set(operations) == {*GENERATED, *PLAIN}


@pytest.mark.parametrize("mode", EXAMPLES)
@pytest.mark.parametrize("label", GENERATED)
def test_whatever_is_asked_is_answered_as_described(
    known: Known, operations: dict[str, Any], label: str, mode: GenerationMode
) -> None:
    @settings(
        max_examples=EXAMPLES[mode],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def holds(case: Case) -> None:
        known.ask(case, known.key)

    holds()


def test_a_good_request_to_each_operation_is_answered_as_described(
    known: Known, operations: dict[str, Any], item_ids: list[str]
) -> None:
    event = {"user_id": "u", "item_id": item_ids[0], "event": "view"}
    user = {"user_id": "u", "top_k": 3}
    good: dict[str, dict[str, Any]] = {
        "POST /v1/events": {"body": {"events": [event]}},
        "POST /v1/recommend": {"body": user | {"explain": True}},
        "POST /v1/batch": {"body": {"requests": [user, {"history": []}]}},
        "POST /v1/rank": {"body": {"user_id": "u", "item_ids": item_ids[:3]}},
        "POST /v1/search": {"body": {"text": "red hat", "facets": ["category", "price"]}},
        "GET /v1/suggest": {"query": {"text": "a"}},
        "POST /v1/similar_items": {"body": {"item_id": item_ids[0]}},
        "GET /v1/items/{item_id}": {"path_parameters": {"item_id": item_ids[0]}},
        "PUT /v1/items/{item_id}": {
            "path_parameters": {"item_id": "new"},
            "body": {"title": "red hat", "attributes": {"price": 3.5}},
        },
        "DELETE /v1/items/{item_id}": {"path_parameters": {"item_id": "new"}},
        "DELETE /v1/users/{user_id}": {"path_parameters": {"user_id": "u"}},
    }
    assert set(good) == set(GENERATED)
    for label in [*good, *PLAIN]:
        json = {"media_type": "application/json"} if "body" in good.get(label, {}) else {}
        case = operations[label].Case(**good.get(label, {}), **json)
        assert known.ask(case, known.key) == 200, label


def test_who_may_not_is_answered_as_described(known: Known, operations: dict[str, Any]) -> None:
    for label in [*GENERATED, *PLAIN]:
        operation = operations[label]
        places = {name: "x" for name in ("item_id", "user_id") if f"{{{name}}}" in label}
        case = operation.Case(path_parameters=places)
        open_to_all = operation.definition.raw["security"] == []
        assert known.ask(case, {}) == (200 if open_to_all else 401), label

"""The served application over real HTTP: answers, fallbacks, bad input."""

from __future__ import annotations

import concurrent.futures
import socket
from collections.abc import Iterator

import httpx
import pytest
from ray import serve

from recsys.artifact import Artifact
from recsys.config import SecurityConfig, ServeArgs
from recsys.engine.recommender import Event, Query, Recommender
from recsys.serving.app import build_app

pytestmark = [pytest.mark.ray]


@pytest.fixture(scope="module")
def client(
    local_ray: None, toy_checkpoint: Artifact, toy_index: Artifact
) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = ServeArgs(
        checkpoint=toy_checkpoint.uri,
        index=toy_index.uri,
        max_top_k=50,
        max_request_history=20,
        security=SecurityConfig(require_auth=False),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_app(args))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        yield http
    serve.shutdown()


@pytest.fixture(scope="module")
def offline(toy_checkpoint: Artifact, toy_index: Artifact) -> Recommender:
    return Recommender.load(toy_checkpoint, toy_index, filter_seen=True)


def _ids(body: dict) -> list[str]:
    return [item["item_id"] for item in body["items"]]


def test_the_served_answer_is_the_offline_answer(
    client: httpx.Client, offline: Recommender, item_ids: list[str]
) -> None:
    events = [Event(item_ids[3], 1_735_700_000, "view"), Event(item_ids[7], 1_735_700_600, "cart")]
    history = [{"item_id": e.item_id, "timestamp": e.timestamp, "event": e.event} for e in events]
    request = {"history": history, "top_k": 12, "exclude": [item_ids[0]]}
    served = client.post("/v1/recommend", json=request).json()
    [expected] = offline.recommend([Query(events, 12, [item_ids[0]])])
    assert _ids(served) == [item.item_id for item in expected.items]
    assert [i["title"] for i in served["items"]] == [item.title for item in expected.items]
    scores = [item["score"] for item in served["items"]]
    assert scores == pytest.approx([item.score for item in expected.items], abs=1e-6)
    assert served["source"] == "model"


def test_requests_answered_together_are_answered_as_alone(
    client: httpx.Client, item_ids: list[str]
) -> None:
    bodies = [{"history": item_ids[n : n + 1 + n % 5], "top_k": 5} for n in range(40)]
    alone = [_ids(client.post("/v1/recommend", json=body).json()) for body in bodies]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda b: client.post("/v1/recommend", json=b).json(), bodies))
    assert [_ids(body) for body in together] == alone


def test_seen_and_excluded_items_are_not_returned(
    client: httpx.Client, item_ids: list[str]
) -> None:
    body = {"history": item_ids[:5], "exclude": item_ids[5:10], "top_k": 50}
    answered = _ids(client.post("/v1/recommend", json=body).json())
    assert len(answered) == 50
    assert not set(answered) & set(item_ids[:10])


@pytest.mark.parametrize("history", [[], ["no such item"]])
def test_without_known_history_popular_items_are_answered_and_marked(
    client: httpx.Client, toy_index: Artifact, history: list[str]
) -> None:
    response = client.post("/v1/recommend", json={"history": history, "top_k": 3})
    body = response.json()
    table = toy_index.read_table("items.parquet").sort_by([("train_count", "descending")])
    assert response.status_code == 200
    assert body["source"] == "popular"
    assert body["unknown_items"] == history
    assert _ids(body)[0] == table["item_id"][0].as_py()


def test_unknown_items_among_known_ones_are_named_and_ignored(
    client: httpx.Client, item_ids: list[str]
) -> None:
    mixed = client.post("/v1/recommend", json={"history": ["???", item_ids[4], "商品"]}).json()
    plain = client.post("/v1/recommend", json={"history": [item_ids[4]]}).json()
    assert mixed["unknown_items"] == ["???", "商品"]
    assert _ids(mixed) == _ids(plain)


def test_similar_items_are_others(client: httpx.Client, item_ids: list[str]) -> None:
    body = client.post("/v1/similar_items", json={"item_id": item_ids[2], "top_k": 4}).json()
    assert len(_ids(body)) == 4
    assert item_ids[2] not in _ids(body)


def test_model_and_health_name_the_version_that_answers(
    client: httpx.Client, toy_checkpoint: Artifact, item_ids: list[str]
) -> None:
    answer = client.post("/v1/recommend", json={"history": item_ids[:1]}).json()
    model = client.get("/v1/model").json()
    ready = client.get("/health/ready").json()
    versions = {answer["model_version"], model["model_version"], ready["model_version"]}
    assert versions == {toy_checkpoint.digest}
    assert client.get("/health/live").status_code == 200
    assert model["num_items"] == len(item_ids)


def test_openapi_describes_every_route(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    answering = {"recommend", "batch", "rank", "similar_items", "search", "suggest"}
    writing_and_telling = {"events", "users/{user_id}", "items/{item_id}", "model"}
    assert {f"/v1/{name}" for name in answering | writing_and_telling} <= set(paths)
    assert {"/health/live", "/health/ready"} <= set(paths)


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/v1/recommend", b'{"history": [', 400, "not valid JSON"),
        ("/v1/recommend", b"[]", 422, "body"),
        ("/v1/recommend", b"{}", 422, "history"),
        ("/v1/recommend", b'{"history": [], "top_k": 0}', 422, "top_k"),
        ("/v1/recommend", b'{"history": [], "top_k": 1000000000}', 422, "allows: 50"),
        ("/v1/recommend", b'{"history": [], "top_k": "many"}', 422, "top_k"),
        ("/v1/recommend", b'{"history": [], "topk": 5}', 422, "topk"),
        ("/v1/recommend", b'{"history": [1, null]}', 422, "history"),
        ("/v1/recommend", b'{"history": [{"item_id": "a", "timestamp": -1}]}', 422, "timestamp"),
        (
            "/v1/recommend",
            b'{"history": [{"item_id": "a", "timestamp": 1735700000000}]}',
            422,
            "timestamp",
        ),
        ("/v1/recommend", b'{"history": ["' + b'a","' * 20 + b'a"]}', 422, "history"),
        ("/v1/recommend", b'{"history": ["\xff"]}', 400, "not valid JSON"),
        ("/v1/similar_items", b'{"item_id": "no such item"}', 404, "no such item"),
        ("/v1/similar_items", b'{"item_id": ""}', 422, "item_id"),
        ("/v1/nothing", b"{}", 404, "Not Found"),
    ],
)
def test_a_bad_request_gets_a_problem_that_says_what_is_wrong(
    client: httpx.Client, path: str, body: bytes, status: int, told: str
) -> None:
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert told in problem["detail"]
    assert "Traceback" not in response.text
    assert client.get("/health/ready").status_code == 200

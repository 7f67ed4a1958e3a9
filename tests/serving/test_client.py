"""The client against the real application: typed answers, problems as errors, patience as told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest
from starlette.testclient import TestClient

from recsys.config import SecurityConfig, ServeArgs, StoreConfig
from recsys.serving.api.requests import (
    FeedbackEvent,
    RankRequest,
    RecommendRequest,
    SearchRequest,
    SimilarItemsRequest,
)
from recsys.serving.client import ATTEMPTS, ProblemError, RecommenderClient
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.serving.security.key_file import add_key
from recsys.serving.security.keys import make_key
from recsys.serving.security.secure import utc_now
from tests.serving.conftest import make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray


@pytest.fixture(scope="module")
def remote(
    toy_args: ServeArgs, toy_models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecommenderClient]:
    """A client with a key to everything of a service in this process."""
    keys = tmp_path_factory.mktemp("client") / "keys.json"
    key, record = make_key("all", "read,events,admin", utc_now())
    add_key(keys, record)
    security = SecurityConfig(keys_file=str(keys))
    changed = {"store": StoreConfig(url="sqlite://"), "security": security}
    service = make_service(toy_args.model_copy(update=changed), toy_models)
    with TestClient(build_http(service)) as http:
        yield RecommenderClient("http://testserver", key, http=http)


def test_every_route_answers_in_its_type(remote: RecommenderClient, item_ids: list[str]) -> None:
    seen = item_ids[:2]
    event = FeedbackEvent(user_id="朋友/1", item_id=seen[0], event="view")
    assert remote.send_events([event]).accepted == 1
    found = remote.recommend(RecommendRequest(user_id="朋友/1", top_k=4, explain=True))
    assert (len(found.items), found.source) == (4, "model")
    assert found.items[0].why is not None
    [alone] = remote.batch([RecommendRequest(user_id="朋友/1", top_k=4)])
    assert [i.item_id for i in alone.items] == [i.item_id for i in found.items]
    ranked = remote.rank(RankRequest(history=list(seen), item_ids=item_ids[5:8]))
    assert {item.item_id for item in ranked.items} == set(item_ids[5:8])
    assert len(remote.similar_items(SimilarItemsRequest(item_id=seen[0], top_k=3)).items) == 3
    item = remote.item(seen[0])
    assert item.title is not None
    assert item.title in [s.text for s in remote.suggest(item.title[:-1]).suggestions]
    assert remote.search(SearchRequest(text=item.title)).query_understanding.text == item.title
    assert remote.model().model_version == found.model_version
    assert remote.forget("朋友/1").deleted_events == 1


def test_a_problem_is_an_error_with_its_words(remote: RecommenderClient) -> None:
    with pytest.raises(ProblemError, match="none") as caught:
        remote.item("none/../such")
    assert (caught.value.status, caught.value.title) == (404, "Not Found")
    assert caught.value.detail == "item 'none/../such' is not in the catalogue"
    with pytest.raises(ProblemError, match="allows: 50"):
        remote.recommend(RecommendRequest(history=[], top_k=51))


def test_without_a_key_nothing_is_answered(remote: RecommenderClient) -> None:
    with pytest.raises(ProblemError) as caught:
        RecommenderClient("http://testserver", http=remote._http).model()
    assert caught.value.status == 401


FORGOTTEN = {"deleted_events": 0}


def scripted(*answers: httpx2.Response) -> tuple[RecommenderClient, list[httpx2.Request], list]:
    """A client of a service that answers so, in this order; its requests; its waits in seconds."""
    requests: list[httpx2.Request] = []
    waits: list[float] = []
    left = list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return left.pop(0)

    http = httpx2.Client(base_url="http://x", transport=httpx2.MockTransport(answer))
    return RecommenderClient("http://x", "k", http=http, sleep=waits.append), requests, waits


def later(status: int, seconds: str | None) -> httpx2.Response:
    headers = {} if seconds is None else {"Retry-After": seconds}
    return httpx2.Response(status, headers=headers, json={})


def test_it_waits_as_long_as_it_is_told_and_asks_the_same_again() -> None:
    client, requests, waits = scripted(
        later(429, "7"),
        later(503, None),
        httpx2.Response(200, json={"accepted": 1, "duplicates": 0}),
    )
    event = FeedbackEvent(user_id="u", item_id="i", event="view")
    assert client.send_events([event]).accepted == 1
    assert 7 <= waits[0] <= 8
    assert 0 <= waits[1] <= 1
    bodies = {request.content for request in requests}
    assert len(requests) == 3
    assert len(bodies) == 1  # the event has one id, so that it counts once
    assert b"event_id" in bodies.pop()


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500, 501, 504])
def test_what_waiting_does_not_mend_is_told_at_once(status: int) -> None:
    client, requests, _ = scripted(later(status, "1"))
    with pytest.raises(ProblemError) as caught:
        client.forget("u")
    assert caught.value.status == status
    assert len(requests) == 1


def test_it_gives_up_after_some_attempts_or_where_the_wait_is_long() -> None:
    client, requests, waits = scripted(*[later(503, "1")] * ATTEMPTS)
    with pytest.raises(ProblemError, match="503"):
        client.forget("u")
    assert (len(requests), len(waits)) == (ATTEMPTS, ATTEMPTS - 1)
    client, _, waits = scripted(later(429, "3600"))
    with pytest.raises(ProblemError) as caught:
        client.forget("u")
    assert (caught.value.retry_after_s, waits) == (3600.0, [])


def test_an_answer_of_a_proxy_is_a_problem_too() -> None:
    client, _, _ = scripted(httpx2.Response(502, text="<html>"))
    with pytest.raises(ProblemError, match="502 Bad Gateway"):
        client.forget("u")


def test_an_answer_of_a_newer_service_is_read() -> None:
    client, _, _ = scripted(httpx2.Response(200, json=FORGOTTEN | {"new": 1}))
    assert client.forget("u").deleted_events == 0


def test_it_never_waits_without_end() -> None:
    with RecommenderClient("http://x") as client:
        assert client._http.timeout == httpx2.Timeout(10.0)


def test_it_needs_neither_ray_nor_torch() -> None:
    code = "import sys, recsys.serving.client; print({'ray', 'torch', 'fastapi'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

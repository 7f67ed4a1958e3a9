"""Every route over ASGI: the answer is the engine's, and what cannot be done is said."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from recsys.config import SecurityConfig, ServeArgs
from recsys.config.security import RULES, RateConfig
from recsys.engine.filters import Filter
from recsys.engine.recommender import Event, Query
from recsys.engine.shop_search import ShopQuery
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.serving.security.key_file import add_key
from recsys.serving.security.keys import make_key
from recsys.serving.security.paths import needed_scope
from recsys.serving.service import RecommenderService
from recsys.store.histories import StoreUnavailable
from tests.serving.conftest import make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
NOW = int(time.time()) - 1_000


def ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def post(client: TestClient, path: str, body: dict, status: int = 200) -> dict:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


def event(user: str, item: str, **more) -> dict:
    return {"user_id": user, "item_id": item, "event": "view", "timestamp": NOW, **more}


class TestRecommend:
    def test_the_answer_is_the_offline_answer_with_all_its_options(
        self, client: TestClient, toy_models: Models, item_ids: list[str]
    ) -> None:
        engine = toy_models.of("live").recommender
        category = engine.item(item_ids[9])["attributes"]["category"]
        body = {
            "history": [{"item_id": item_ids[3], "timestamp": NOW, "event": "view"}, item_ids[7]],
            "top_k": 8,
            "exclude": [item_ids[0]],
            "filters": [{"column": "category", "values": [category], "negated": True}],
            "diversity": 0.3,
            "max_per_category": 2,
        }
        served = post(client, "/v1/recommend", body)
        query = Query(
            [Event(item_ids[3], NOW, "view"), Event(item_ids[7])],
            8,
            (item_ids[0],),
            filters=(Filter("category", (category,), None, None, True),),
            diversity=0.3,
            max_per_category=2,
        )
        [expected] = engine.recommend([query])
        assert ids(served) == [item.item_id for item in expected.items]
        assert [i["score"] for i in served["items"]] == [i.score for i in expected.items]

    def test_an_unknown_column_is_told_with_those_there_are(
        self, client: TestClient, item_ids: list[str]
    ) -> None:
        body = {"history": [item_ids[0]], "filters": [{"column": "colour", "values": ["red"]}]}
        problem = post(client, "/v1/recommend", body, 422)
        assert "colour" in problem["detail"]
        assert "category" in problem["detail"]

    def test_neither_user_nor_history_is_refused(self, client: TestClient) -> None:
        assert "user_id" in post(client, "/v1/recommend", {"top_k": 3}, 422)["detail"]

    def test_reasons_are_those_of_the_engine(
        self, client: TestClient, toy_models: Models, item_ids: list[str]
    ) -> None:
        history = item_ids[3:6]
        served = post(client, "/v1/recommend", {"history": history, "explain": True, "top_k": 4})
        query = Query([Event(item_id) for item_id in history])
        expected = toy_models.of("live").recommender.explain(query, ids(served))
        assert [i["why"]["sentence"] for i in served["items"]] == [e.sentence for e in expected]

    def test_an_equal_request_is_answered_from_the_cache_and_a_new_event_is_not(
        self, client: TestClient, service: RecommenderService, item_ids: list[str]
    ) -> None:
        calls = []
        inner = service._answer_one["live"]

        async def counted(query):
            calls.append(query)
            return await inner(query)

        service._answer_one["live"] = counted
        post(client, "/v1/events", {"events": [event("u", item_ids[3])]})
        first, again = (post(client, "/v1/recommend", {"user_id": "u"}) for _ in range(2))
        assert (ids(first), len(calls)) == (ids(again), 1)
        post(client, "/v1/events", {"events": [event("u", item_ids[9], timestamp=NOW + 5)]})
        post(client, "/v1/recommend", {"user_id": "u"})
        assert len(calls) == 2

    def test_many_requests_in_one_are_answered_in_their_order(
        self, client: TestClient, item_ids: list[str]
    ) -> None:
        requests = [{"history": [item_ids[n]], "top_k": 3} for n in range(5)]
        answers = post(client, "/v1/batch", {"requests": requests})["answers"]
        alone = [post(client, "/v1/recommend", one) for one in requests]
        assert [ids(answer) for answer in answers] == [ids(answer) for answer in alone]


class TestRank:
    def test_the_order_and_the_scores_are_those_of_recommending(
        self, client: TestClient, item_ids: list[str]
    ) -> None:
        history = item_ids[3:6]
        all_items = post(client, "/v1/recommend", {"history": history, "top_k": 50})["items"]
        some = [item["item_id"] for item in all_items[10:30:5]]
        ranked = post(client, "/v1/rank", {"history": history, "item_ids": [*some[::-1], "???"]})
        assert ids(ranked) == some
        scores = {item["item_id"]: item["score"] for item in all_items}
        expected = [scores[item_id] for item_id in some]
        assert [item["score"] for item in ranked["items"]] == pytest.approx(expected, abs=1e-6)
        assert ranked["unknown_items"] == ["???"]

    def test_nothing_to_rank_by_is_refused(self, client: TestClient, item_ids: list[str]) -> None:
        post(client, "/v1/rank", {"item_ids": item_ids[:3]}, 422)


class TestEvents:
    def test_the_next_answer_knows_them(self, client: TestClient, item_ids: list[str]) -> None:
        cold = post(client, "/v1/recommend", {"user_id": "u-1"})
        assert cold["source"] == "popular"
        done = post(client, "/v1/events", {"events": [event("u-1", item_ids[5])]})
        assert (done["accepted"], done["duplicates"], done["degraded"]) == (1, 0, [])
        by_user = post(client, "/v1/recommend", {"user_id": "u-1"})
        sent = {"item_id": item_ids[5], "timestamp": NOW, "event": "view"}
        assert ids(by_user) == ids(post(client, "/v1/recommend", {"history": [sent]}))
        assert by_user["source"] == "model"

    def test_a_repeated_event_changes_nothing(
        self, client: TestClient, item_ids: list[str]
    ) -> None:
        body = {"events": [event("u-2", item_ids[5], event_id="e-1")]}
        assert post(client, "/v1/events", body)["duplicates"] == 0
        assert post(client, "/v1/events", body) == {
            "accepted": 0,
            "duplicates": 1,
            "outdated": 0,
            "degraded": [],
        }

    def test_an_event_too_old_to_remember_is_told(
        self, client: TestClient, item_ids: list[str]
    ) -> None:
        old = event("u-2", item_ids[5], timestamp=1_000_000_000)
        done = post(client, "/v1/events", {"events": [old]})
        assert (done["accepted"], done["outdated"]) == (0, 1)

    def test_a_forgotten_user_is_cold_again(self, client: TestClient, item_ids: list[str]) -> None:
        post(client, "/v1/events", {"events": [event("朋友/1", i) for i in item_ids[:3]]})
        assert client.delete("/v1/users/朋友%2F1").json() == {"deleted_events": 3}
        assert post(client, "/v1/recommend", {"user_id": "朋友/1"})["source"] == "popular"

    def test_an_event_of_next_year_is_refused(
        self, client: TestClient, item_ids: list[str]
    ) -> None:
        late = event("u", item_ids[0], timestamp=4_000_000_000)
        assert "more than a day" in post(client, "/v1/events", {"events": [late]}, 422)["detail"]

    def test_events_and_exposures_are_logged_for_the_next_training(
        self, client: TestClient, service: RecommenderService, item_ids: list[str]
    ) -> None:
        answer = post(client, "/v1/recommend", {"user_id": "u-3", "top_k": 4})
        seen = event("u-3", ids(answer)[0], request_id=answer["request_id"])
        post(client, "/v1/events", {"events": [seen]})
        assert service.memory.feedback is not None
        service.memory.feedback.flush()
        folder = Path(service.args.feedback.uri)
        [logged] = pq.ParquetDataset(folder / "interactions").read().to_pylist()
        assert (logged["user_id"], logged["item_id"]) == ("u-3", ids(answer)[0])
        [shown] = pq.ParquetDataset(folder / "exposures").read().to_pylist()
        assert (shown["user_id"], shown["item_ids"]) == ("u-3", ids(answer))
        assert shown["request_id"] == logged["request_id"] == answer["request_id"]

    def test_a_store_that_is_down_costs_the_history_and_not_the_answer(
        self, client: TestClient, service: RecommenderService, item_ids: list[str], monkeypatch
    ) -> None:
        def down(*_):
            raise StoreUnavailable("the server does not answer")

        for name in ("last", "append", "delete"):
            monkeypatch.setattr(service.memory.store, name, down)
        answer = post(client, "/v1/recommend", {"user_id": "u-4"})
        assert answer["source"] == "popular"
        assert answer["degraded"] == ["history: the store does not answer"]
        done = post(client, "/v1/events", {"events": [event("u-4", item_ids[0])]})
        assert done["degraded"] == ["history: the store does not answer"]
        assert client.delete("/v1/users/u-4").status_code == 503


def test_a_service_that_remembers_nothing_says_so(
    toy_args: ServeArgs, toy_models: Models, item_ids: list[str]
) -> None:
    with TestClient(build_http(make_service(toy_args, toy_models))) as client:
        assert "'store'" in post(client, "/v1/events", {"events": [event("u", "i")]}, 501)["detail"]
        answer = post(client, "/v1/recommend", {"user_id": "u"})
        assert answer["degraded"] == ["history: this service remembers none; send 'history'"]


def test_an_item_is_told_with_its_attributes(client: TestClient, item_ids: list[str]) -> None:
    told = client.get(f"/v1/items/{item_ids[3]}").json()
    assert told["item_id"] == item_ids[3]
    assert {"category", "brand", "price"} <= set(told["attributes"])
    assert client.get("/v1/items/none").status_code == 404


def test_the_page_and_its_files_are_served(client: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/page/page.js", "text/javascript")):
        response = client.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
    assert client.get("/page/../http.py").status_code == 404


class TestSearch:
    def test_what_is_found_is_what_the_engine_finds(
        self, client: TestClient, toy_models: Models, item_ids: list[str]
    ) -> None:
        model = toy_models.of("live")
        title = model.recommender.item(item_ids[9])["title"]
        body = {"text": title, "history": item_ids[3:6], "personal": 0.4, "top_k": 5}
        served = post(client, "/v1/search", body)
        history = [Event(item_id) for item_id in item_ids[3:6]]
        expected = model.search.search(ShopQuery(title, history, 5, 0.4))
        assert ids(served) == [item.item_id for item in expected.found.items]
        assert served["source"] == "search"
        assert served["personal"] is True
        assert served["query_understanding"]["text"] == title

    def test_nobody_in_particular_gets_plain_results(
        self, client: TestClient, item_ids: list[str]
    ) -> None:
        plain = post(client, "/v1/search", {"text": "red hat", "personal": 0})
        asked = {"text": "red hat", "personal": 0, "history": item_ids[:3]}
        assert ids(post(client, "/v1/search", asked)) == ids(plain)
        assert plain["personal"] is False

    def test_filters_hold_and_facets_add_up(
        self, client: TestClient, toy_models: Models, item_ids: list[str]
    ) -> None:
        model = toy_models.of("live")
        category = model.recommender.item(item_ids[9])["attributes"]["category"]
        body = {
            "text": "hat shoe nail",
            "top_k": 50,
            "use_understanding": False,
            "filters": [{"column": "category", "values": [category]}],
            "facets": ["category"],
        }
        served = post(client, "/v1/search", body)
        values = [model.recommender.item(i)["attributes"]["category"] for i in ids(served)]
        assert set(values) == {category}
        [facet] = served["facets"]
        counted = sum(count["count"] for count in facet["counts"])
        assert counted + facet["missing"] + facet["others"] == len(values)

    def test_an_edited_understanding_is_followed(
        self, client: TestClient, toy_models: Models, item_ids: list[str]
    ) -> None:
        recommender = toy_models.of("live").recommender
        category = recommender.item(item_ids[9])["attributes"]["category"]
        read = post(client, "/v1/search", {"text": "something"})["query_understanding"]
        slot = {"kind": "category", "column": "category", "value": category}
        body = {"text": "something", "query_understanding": read | {"slots": [slot]}}
        answer = post(client, "/v1/search", body)
        values = {recommender.item(i)["attributes"]["category"] for i in ids(answer)}
        assert values == {category}

    @pytest.mark.parametrize("text", ["", "🎉🎉", "\x00", "'; DROP TABLE items; --", "x" * 9_999])
    def test_any_text_is_answered(self, client: TestClient, text: str) -> None:
        assert post(client, "/v1/search", {"text": text, "top_k": 3})["source"] in {
            "search",
            "popular",
        }

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            ({"facets": ["colour"]}, "colour"),
            ({"filters": [{"column": "title", "values": ["a"]}]}, "title"),
            ({"personal": 2}, "personal"),
            ({"text": "x" * 10_001}, "text"),
        ],
    )
    def test_what_does_not_fit_is_told(self, client: TestClient, more: dict, told: str) -> None:
        assert told in post(client, "/v1/search", {"text": "hat"} | more, 422)["detail"]

    def test_a_text_ranks_candidates_that_fit_it_first(
        self, client: TestClient, toy_models: Models, item_ids: list[str]
    ) -> None:
        title = toy_models.of("live").recommender.item(item_ids[9])["title"]
        body = {"text": title, "item_ids": item_ids[:20], "personal": 0}
        ranked = post(client, "/v1/rank", body)
        assert sorted(ids(ranked)) == sorted(item_ids[:20])
        assert ranked["source"] == "search"
        titles = [item["title"] for item in ranked["items"]]
        assert titles[0] == title

    def test_what_is_typed_goes_on(
        self, client: TestClient, toy_models: Models, item_ids: list[str]
    ) -> None:
        title = toy_models.of("live").recommender.item(item_ids[9])["title"]
        found = client.get("/v1/suggest", params={"text": title[:-1]}).json()["suggestions"]
        assert title in [s["text"] for s in found]
        assert client.get("/v1/suggest", params={"text": ""}).json() == {"suggestions": []}

    def test_a_service_without_search_says_so(self, toy_args: ServeArgs) -> None:
        args = toy_args.model_copy(update={"search": False})
        with TestClient(build_http(make_service(args, Models.load(args)))) as client:
            assert "does not search" in post(client, "/v1/search", {"text": "a"}, 501)["detail"]


def test_every_route_has_a_scope_on_purpose(client: TestClient) -> None:
    for_admins = {"/v1/users/{user_id}"}
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            scope = {"method": method.upper(), "path": path.replace("{", "").replace("}", "")}
            needed = needed_scope(scope, RULES)
            public = path in SecurityConfig().public_paths
            assert (needed == "admin") == (path in for_admins or public), path


def test_nobody_gets_in_without_a_key(
    toy_args: ServeArgs, toy_models: Models, tmp_path: Path
) -> None:
    key, record = make_key("shop", "read", datetime.datetime.now(datetime.UTC))
    add_key(tmp_path / "keys.json", record)
    rates = RateConfig(failed_auth_burst=100)
    security = SecurityConfig(keys_file=str(tmp_path / "keys.json"), rates=rates)
    args = toy_args.model_copy(update={"security": security})
    with TestClient(build_http(make_service(args, toy_models))) as client:
        known = {"Authorization": f"Bearer {key}"}
        paths = client.get("/openapi.json", headers=known).json()["paths"]
        for path, methods in paths.items():
            for method in methods:
                response = client.request(method, path)
                assert (response.status_code == 200) == path.startswith("/health/"), path
                assert path.startswith("/health/") or response.status_code == 401, path
        for path in ("/", "/docs", "/page/page.js", "/metrics", "/nothing"):
            assert client.get(path).status_code == 401
        body = {"history": [], "top_k": 3}
        assert client.post("/v1/recommend", json=body, headers=known).status_code == 200
        events = {"events": [event("u", "i")]}
        assert client.post("/v1/events", json=events, headers=known).status_code == 403
        assert client.delete("/v1/users/u", headers=known).status_code == 403

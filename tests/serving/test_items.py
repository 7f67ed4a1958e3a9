"""Items that are added, changed and removed by a route: reachable at once, and on every replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from starlette.testclient import TestClient

from recsys.artifact import Artifact
from recsys.config import ItemLogConfig, ServeArgs
from recsys.engine.recommender import Recommender
from recsys.registry import Registry
from recsys.serving.http import build_http
from recsys.serving.item_changes import ItemChanges
from recsys.serving.models import Models
from recsys.serving.release import golden_requests
from recsys.serving.served_model import ServedModel
from recsys.store.histories import StoreUnavailable
from recsys.store.open import open_item_log
from tests.serving.conftest import OPEN, make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
LAMP = {"title": "Zorblax lamp 台灯", "attributes": {"price": 12.5}}
NEVER_S = 3_600.0


@pytest.fixture(scope="module")
def loaded(toy_args: ServeArgs) -> ServedModel:
    """The toy model with what encodes items; nothing changes it, so all tests share it."""
    args = toy_args.model_copy(update={"items": ItemLogConfig(url="sqlite://")})
    return Models.load(args).of("live")


@pytest.fixture
def starting(
    loaded: ServedModel, toy_args: ServeArgs, tmp_path: Path
) -> Iterator[Callable[[], TestClient]]:
    """A function that starts one more replica; it looks at the log when it is made to."""
    clients: list[TestClient] = []
    log = ItemLogConfig(url=f"sqlite:///{tmp_path / 'items.sqlite'}", poll_s=NEVER_S)
    args = toy_args.model_copy(update={"items": log})

    def start() -> TestClient:
        service = make_service(args, Models({"live": loaded}))
        client = TestClient(build_http(service), raise_server_exceptions=False)
        client.app_state["service"] = service
        clients.append(client)
        return client.__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def live(client: TestClient) -> ServedModel:
    return client.app_state["service"].models.of("live")


def look(client: TestClient) -> None:
    client.app_state["service"].items.step()


def found(client: TestClient, text: str, **more: object) -> list[str]:
    body = {"text": text, "use_understanding": False, "top_k": 5, **more}
    answer = client.post("/v1/search", json=body).json()
    return [item["item_id"] for item in answer["items"] if answer["source"] == "search"]


def recommended(client: TestClient, history: list[str]) -> list[str]:
    answer = client.post("/v1/recommend", json={"history": history, "top_k": 50}).json()
    return [item["item_id"] for item in answer["items"]]


def test_an_added_item_is_known_recommended_and_found_at_once(
    starting: Callable[[], TestClient], item_ids: list[str]
) -> None:
    client = starting()
    before = recommended(client, item_ids[:2])
    assert client.get("/v1/items/new/灯").status_code == 404
    told = client.put("/v1/items/new/灯", json=LAMP)
    assert told.status_code == 200, told.text
    assert (told.json()["warnings"], told.json()["applied"]) == ([], True)
    assert client.get("/v1/items/new/灯").json()["title"] == LAMP["title"]
    assert found(client, "zorblax")[0] == "new/灯"
    assert found(client, "台灯")[0] == "new/灯"
    assert set(recommended(client, item_ids[:2])) <= {*before, "new/灯"}
    ask = {"history": item_ids[:2], "top_k": 50, "filters": [{"column": "price", "minimum": 12.4}]}
    ask["filters"].append({"column": "price", "maximum": 12.6})
    items = client.post("/v1/recommend", json=ask).json()["items"]
    assert "new/灯" in [item["item_id"] for item in items]
    assert client.get("/v1/model").json()["item_changes"] == told.json()["change"]


def test_an_item_that_is_put_again_has_the_vector_that_the_index_made(
    loaded: ServedModel, toy_dataset: Artifact, toy_index: Artifact, item_ids: list[str]
) -> None:
    raw = toy_dataset.read_table("items.parquet")
    fields = ["title", "category", "brand", "description"]
    names = [n for n in raw.column_names if n in ("item_id", *fields)]
    table = raw.select(names)
    assert loaded.encoder is not None
    encoded = loaded.encoder.encode(table)
    ids = encoded.items["item_id"].to_pylist()
    rows = torch.tensor([item_ids.index(item_id) for item_id in ids])
    expected = loaded.recommender._index.vectors_of(rows)
    torch.testing.assert_close(encoded.vectors_MD, expected, atol=1e-5, rtol=0)


def test_a_new_item_has_the_vector_of_its_text_alone(loaded: ServedModel) -> None:
    assert loaded.encoder is not None
    table = pa.table({"item_id": ["x", "y"], "title": ["red hat", "red hat"]})
    first, second = loaded.encoder.encode(table).vectors_MD
    assert torch.equal(first, second)
    half = len(first) // 2
    assert first[:half].norm() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(first[half:], torch.zeros(half))


def test_a_removed_item_is_answered_by_no_route(
    starting: Callable[[], TestClient], item_ids: list[str]
) -> None:
    client = starting()
    gone = recommended(client, item_ids[:2])[0]
    title = client.get(f"/v1/items/{gone}").json()["title"]
    assert gone in found(client, title)
    assert client.delete(f"/v1/items/{gone}").status_code == 200
    assert gone not in recommended(client, item_ids[:2])
    assert gone not in found(client, title)
    assert client.delete("/v1/items/never seen").status_code == 200
    client.put(f"/v1/items/{gone}", json={"title": title})
    assert gone in recommended(client, item_ids[:2])
    assert gone in found(client, title)


def test_a_changed_item_is_found_by_its_new_words_and_no_more_by_the_old(
    starting: Callable[[], TestClient], item_ids: list[str]
) -> None:
    client = starting()
    client.put(f"/v1/items/{item_ids[5]}", json={"title": "frobnicator"})
    client.put(f"/v1/items/{item_ids[5]}", json={"title": "quuxifier"})
    by_words = {"text": "frobnicator", "use_understanding": False}
    old = client.post("/v1/search", json=by_words).json()["items"]
    assert all(item["lexical_rank"] is None for item in old)
    assert found(client, "quuxifier")[0] == item_ids[5]


def test_other_replicas_follow_and_a_later_one_replays(
    starting: Callable[[], TestClient], item_ids: list[str]
) -> None:
    one, other = starting(), starting()
    one.put("/v1/items/a", json=LAMP)
    one.put("/v1/items/a", json={"title": "second thought"})
    other.delete(f"/v1/items/{item_ids[4]}")
    look(one)
    late = starting()
    numbers = {client.get("/v1/model").json()["item_changes"] for client in (one, other, late)}
    assert len(numbers) == 1
    for client in (one, other, late):
        assert client.get("/v1/items/a").json()["title"] == "second thought"
        assert item_ids[4] not in recommended(client, item_ids[:1])
    before = live(one)
    look(one)
    assert live(one) is before


def test_what_does_not_fit_is_refused_and_changes_nothing(
    starting: Callable[[], TestClient],
) -> None:
    client = starting()
    before = live(client)
    for body, said in [
        ({"title": "x", "attributes": {"colour": "red"}}, "no column colour"),
        ({"title": "hat", "attributes": {"price": "cheap"}}, "another type"),
        ({"title": "<br>"}, "nothing to read"),
        ({"attributes": {}}, "title"),
        ({"title": "hat", "stock": 3}, "stock"),
    ]:
        answer = client.put("/v1/items/x", json=body)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
    assert live(client) is before
    told = client.put("/v1/items/x", json={"title": "hat", "attributes": {"price": -1.0}}).json()
    assert told["warnings"] == ["bad_price"]


def test_without_a_log_or_with_one_that_is_down_it_is_said(
    client: TestClient, starting: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.put("/v1/items/x", json=LAMP).status_code == 501
    assert client.delete("/v1/items/x").status_code == 501
    replica = starting()

    def fails(*_: object) -> int:
        raise StoreUnavailable("down")

    monkeypatch.setattr(replica.app_state["service"].items._log, "append", fails)
    answer = replica.delete("/v1/items/x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_change_that_an_index_cannot_take_costs_no_other(
    loaded: ServedModel, toy_args: ServeArgs
) -> None:
    log = open_item_log(ItemLogConfig(url="sqlite://"))
    log.append("bad", {"title": "hat", "price": "of another release"})
    log.append("good", {"title": "hat", "of_another_index": "red"})
    changes = ItemChanges(log, NEVER_S)
    model = changes.caught_up(loaded)
    changes.close()
    assert model.recommender.item("bad") is None
    assert model.recommender.item("good") is not None


def test_a_promoted_model_has_the_changes_that_its_catalogue_cannot_have(
    toy_checkpoint: Artifact, toy_index: Artifact, item_ids: list[str], tmp_path: Path
) -> None:
    registry = Registry(str(tmp_path / "registry"))
    golden = golden_requests(Recommender.load(toy_checkpoint, toy_index, True), item_ids)
    version = registry.register(toy_checkpoint, toy_index, golden, now=0.0)
    registry.point("live", version.name, now=0.0)
    args = ServeArgs(
        registry=registry.uri,
        registry_poll_s=NEVER_S,
        search=False,
        security=OPEN,
        items=ItemLogConfig(url="sqlite://"),
    )
    assert args.items is not None
    log = open_item_log(args.items)
    changes = ItemChanges(log, NEVER_S)
    models = Models.load(args, changes.caught_up)
    changes.follow(models)
    changes.append("lamp", {"title": "lamp"})
    changes.step()
    registry.point("live", version.name, now=0.0)
    before = models.of("live")
    for follower in models._followers:
        follower.step()
    assert models.of("live") is not before
    assert models.of("live").recommender.item("lamp") is not None
    assert models.of("live").changed_to == before.changed_to
    models.close()
    changes.close()

"""The final ranker as it is served: its order and probabilities, promoted, rolled back, refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from ray_jobs import models, promote, rollback
from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import RankerConfig, ServeArgs
from recsys.engine.fit_ranker import fit_ranker_artifact
from recsys.engine.recommender import Event, Query
from recsys.engine.search import FoundItem
from recsys.engine.shop_search import ShopQuery, ShopSearch
from recsys.registry import GoldenSearch, Registry
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.serving.release import check_searches, golden_searches
from tests.serving.conftest import OPEN, make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
TEXT = "leather"


@pytest.fixture(scope="module")
def ranker(
    tmp_path_factory: pytest.TempPathFactory,
    toy_dataset: Artifact,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
) -> Artifact:
    """Of judges who like three of four cheap items: each word of a title is a query."""
    folder = tmp_path_factory.mktemp("ranker")
    items = toy_index.read_table("items.parquet").to_pylist()
    middle = sorted(item["price"] for item in items)[len(items) // 2]
    words = sorted({word for item in items for word in item["title"].split()})
    cheap = [item["item_id"] for item in items if item["price"] < middle]
    rows = [{"query": word, "item_id": item_id} for word in words for item_id in cheap]
    liked = [row for number, row in enumerate(rows) if number % 4]
    pq.write_table(pa.Table.from_pylist(liked), folder / "queries.parquet")
    config = RankerConfig(queries=str(folder / "queries.parquet"))
    parents = toy_dataset, toy_checkpoint, toy_index
    return fit_ranker_artifact(config, *parents, str(folder / "ranker"), now=0.0)


@pytest.fixture(scope="module")
def offline(
    ranker: Artifact, toy_checkpoint: Artifact, toy_index: Artifact, toy_models: Models
) -> ShopSearch:
    """The engine alone, with the ranker."""
    recommender = toy_models.of("live").recommender
    return ShopSearch.load(toy_checkpoint, toy_index, recommender, ranker)


@pytest.fixture(scope="module")
def ranked_models(toy_args: ServeArgs, ranker: Artifact) -> Models:
    return Models.load(toy_args.model_copy(update={"ranker": ranker.uri}))


@pytest.fixture
def ranked(toy_args: ServeArgs, ranked_models: Models) -> Iterator[TestClient]:
    """Asks a service that has the ranker."""
    with TestClient(build_http(make_service(toy_args, ranked_models))) as http:
        yield http


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def args(registry: Registry) -> ServeArgs:
    return ServeArgs(registry=registry.uri, registry_poll_s=3_600, security=OPEN)


def post(client: TestClient, path: str, body: dict) -> dict:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def told(items: list[dict]) -> list[tuple]:
    return [(item["item_id"], item["score"], item.get("probability")) for item in items]


def found(items: list[FoundItem]) -> list[tuple]:
    return [(item.item_id, item.score, item.probability) for item in items]


@pytest.mark.parametrize("personal", [0.0, 0.4])
def test_search_answers_what_the_engine_finds_with_the_same_ranker(
    ranked: TestClient,
    client: TestClient,
    offline: ShopSearch,
    item_ids: list[str],
    personal: float,
) -> None:
    body = {"text": TEXT, "history": item_ids[3:6], "personal": personal, "top_k": 50}
    served = post(ranked, "/v1/search", body)["items"]
    history = [Event(item_id) for item_id in item_ids[3:6]]
    expected = offline.search(ShopQuery(TEXT, history, 50, personal)).found.items
    assert told(served) == found(expected)
    assert all(0 <= item["probability"] <= 1 for item in served)
    assert len({item["probability"] for item in served}) > 1
    without = post(client, "/v1/search", body)["items"]
    assert [item["item_id"] for item in without] != [item["item_id"] for item in served]
    assert all("probability" not in item for item in without)


def test_given_items_stand_and_count_as_the_whole_search_has_them(
    ranked: TestClient, offline: ShopSearch, toy_models: Models, item_ids: list[str]
) -> None:
    some = item_ids[::3]
    body = {"text": TEXT, "item_ids": some, "history": item_ids[3:6], "personal": 0}
    answer = post(ranked, "/v1/rank", body)
    whole = offline.search(ShopQuery(TEXT, top_k=200, use_understanding=False)).found.items
    expected = [item for item in whole if item.item_id in some]
    assert len(expected) > 3
    assert told(answer["items"])[: len(expected)] == found(expected)
    sorted_offline = offline.sort(TEXT, some, [], 0.0)
    assert told(answer["items"])[: len(sorted_offline)] == found(sorted_offline)
    others = answer["items"][len(sorted_offline) :]
    assert sorted(item["item_id"] for item in answer["items"]) == sorted(some)
    assert [(item["score"], item["probability"]) for item in others] == [(0.0, None)] * len(others)
    [liked] = toy_models.of("live").recommender.rank_items(
        [Query([Event(item_id) for item_id in item_ids[3:6]])], [some]
    )
    rest = [item.item_id for item in liked.items if item.item_id in {i["item_id"] for i in others}]
    assert [item["item_id"] for item in others] == rest


def test_without_a_text_the_ranker_has_no_say(
    ranked: TestClient, client: TestClient, item_ids: list[str]
) -> None:
    body = {"history": item_ids[3:6], "item_ids": item_ids[10:20]}
    assert told(post(ranked, "/v1/rank", body)["items"]) == told(
        post(client, "/v1/rank", body)["items"]
    )


def test_answers_kept_of_one_ranker_are_not_those_of_another(
    ranked_models: Models, toy_models: Models
) -> None:
    alone, ranked = toy_models.of("live"), ranked_models.of("live")
    assert (alone.version, alone.index.digest) == (ranked.version, ranked.index.digest)
    assert alone.parts != ranked.parts


def test_the_ranker_comes_and_goes_with_its_version(
    args: ServeArgs,
    registry: Registry,
    ranker: Artifact,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
    capsys: pytest.CaptureFixture,
) -> None:
    asked = promote.Arguments(registry.uri, toy_checkpoint.uri, toy_index.uri, wait_s=0)
    promote.run(asked)
    served = Models.load(args)
    [follower, _] = served._followers

    def answers() -> tuple[list[tuple], str | None]:
        follower.step()
        items = post(client, "/v1/search", {"text": TEXT})["items"]
        return told(items), client.get("/v1/model").json()["ranker_version"]

    with TestClient(build_http(make_service(args, served))) as client:
        plain, version = answers()
        assert version is None
        made = promote.run(
            promote.Arguments(
                registry.uri, toy_checkpoint.uri, toy_index.uri, wait_s=0, ranker=ranker.uri
            )
        )
        ranked, version = answers()
        assert version == ranker.digest
        assert ranked != plain
        assert all(probability is not None for _, _, probability in ranked)
        rollback.run(rollback.Arguments(registry.uri, wait_s=0))
        assert answers() == (plain, None)
        assert served.refused == []
    models.run(models.Arguments("show", registry.uri, (made.version,)))
    assert ranker.digest in capsys.readouterr().out


def test_a_damaged_ranker_is_refused_by_name_and_the_old_release_answers(
    args: ServeArgs,
    registry: Registry,
    ranker: Artifact,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
    tmp_path: Path,
) -> None:
    pair = toy_checkpoint, toy_index
    first = registry.register(*pair, [], now=0.0)
    copy = open_artifact(shutil.copytree(ranker.uri, tmp_path / "ranker"), "ranker")
    bad = registry.register(*pair, [], now=0.0, ranker=copy)
    registry.point("live", first.name, now=0.0)
    served = Models.load(args)
    trees = tmp_path / "ranker" / "trees.txt"
    trees.write_bytes(trees.read_bytes().replace(b"threshold=", b"threshold=9", 1))
    registry.point("live", bad.name, now=0.0)
    before = served.of("live")
    for follower in served._followers:
        follower.step()
    assert served.of("live") is before
    [refusal] = served.refused
    assert refusal.version == bad.name
    assert "ranker: file 'trees.txt' is torn" in refusal.reason


def test_a_ranker_of_another_index_is_refused_wherever_it_is_named(
    toy_args: ServeArgs,
    registry: Registry,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
    tmp_path: Path,
) -> None:
    foreign = ArtifactWriter(tmp_path / "foreign", "ranker").publish({}, {"index": "f" * 64})
    asked = promote.Arguments(
        registry.uri, toy_checkpoint.uri, toy_index.uri, wait_s=0, ranker=foreign.uri
    )
    with pytest.raises(ValueError, match="foreign was fitted to index ffff"):
        promote.run(asked)
    with pytest.raises(ValueError, match="foreign was fitted to index ffff"):
        Models.load(toy_args.model_copy(update={"ranker": foreign.uri}))
    assert registry.versions() == []


def test_a_service_without_search_leaves_the_ranker_out(
    args: ServeArgs,
    registry: Registry,
    ranker: Artifact,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
) -> None:
    wrong = [GoldenSearch(text=TEXT, answer=["nothing"])]
    version = registry.register(
        toy_checkpoint, toy_index, [], now=0.0, ranker=ranker, searches=wrong
    )
    registry.point("live", version.name, now=0.0)
    served = Models.load(args.model_copy(update={"search": False})).of("live")
    assert (served.search, served.ranker) == (None, None)
    with pytest.raises(ValueError, match="golden searches are answered with 0 of the 1 items"):
        Models.load(args)


def test_golden_searches_tell_one_ranker_from_another(
    offline: ShopSearch, toy_models: Models, toy_index: Artifact
) -> None:
    titles = toy_index.read_table("items.parquet")["title"].to_pylist()
    golden = golden_searches(offline, [None, *titles], now=5.0)
    check_searches(offline, golden, now=5.0)
    plain = toy_models.of("live").search
    assert plain is not None
    with pytest.raises(ValueError, match="golden searches are answered with"):
        check_searches(plain, golden, now=5.0)

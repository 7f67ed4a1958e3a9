"""What is logged of how requests ended: status, time and model, by experiment and variant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from recsys.artifact import Artifact
from recsys.config import CanaryConfig, FeedbackConfig, ServeArgs
from recsys.experiments.canary.evidence import read_evidence
from recsys.experiments.requests import read_requests
from recsys.registry import Registry
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.serving.service import RecommenderService
from tests.serving.conftest import make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
TOML = """
[[experiments]]
name = "canary"
salt = "canary"
variants = [{name = "live", share = 0.5}, {name = "candidate", share = 0.5, alias = "candidate"}]
"""


@pytest.fixture
def watched(toy_args: ServeArgs, toy_models: Models, tmp_path: Path) -> RecommenderService:
    (tmp_path / "experiments.toml").write_text(TOML)
    log = FeedbackConfig(uri=str(tmp_path / "log"), spool=str(tmp_path / "spool"))
    changed = {"experiments": str(tmp_path / "experiments.toml"), "feedback": log}
    return make_service(toy_args.model_copy(update=changed), toy_models)


@pytest.fixture
def client(watched: RecommenderService) -> Iterator[TestClient]:
    with TestClient(build_http(watched), raise_server_exceptions=False) as http:
        yield http


def logged(service: RecommenderService) -> pl.DataFrame:
    assert service.memory.feedback is not None
    assert service.args.feedback is not None
    service.memory.feedback.flush()
    return read_requests(f"{service.args.feedback.uri}/requests", "canary", since="")


def test_a_request_is_logged_with_its_variant_release_status_and_time(
    watched: RecommenderService,
    client: TestClient,
    item_ids: list[str],
    tmp_path: Path,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
) -> None:
    body = {"user_id": "u", "history": item_ids[3:6], "top_k": 4}
    answer = client.post("/v1/recommend", json=body).json()
    [row] = logged(watched).to_dicts()
    assert row["request_id"] == answer["request_id"]
    assert row["variant"] == answer["variants"]["canary"]
    registered = Registry(str(tmp_path)).register(toy_checkpoint, toy_index, [], now=0.0)
    assert row["release"] == registered.name
    assert (row["user_id"], row["status"], row["num_items"]) == ("u", 200, 4)
    assert row["route"] == "/v1/recommend"
    assert 0 < row["ms"] < 60_000


def test_the_canary_reads_what_the_service_logged(
    watched: RecommenderService, client: TestClient, item_ids: list[str]
) -> None:
    body = {"user_id": "u", "history": item_ids[3:6], "top_k": 4}
    answer = client.post("/v1/recommend", json=body).json()
    click = {"user_id": "u", "item_id": answer["items"][0]["item_id"], "event": "click"}
    assert client.post("/v1/events", json={"events": [click]}).status_code == 200
    assert watched.memory.feedback is not None
    watched.memory.feedback.flush()
    assert watched.args.feedback is not None
    evidence = read_evidence(watched.args.feedback.uri, "canary", 0.0, CanaryConfig())
    found = evidence.figures()[answer["variants"]["canary"]]
    assert [found[name] for name in ("users", "requests", "failed")] == [1, 1, 0]
    assert [found[name] for name in ("items_shown", "clicks", "ctr")] == [4, 1, 0.25]


def test_a_request_that_fails_is_logged_with_the_model_that_was_to_answer(
    watched: RecommenderService,
    client: TestClient,
    item_ids: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a weight is not a number")

    monkeypatch.setattr(watched.models.of("live").recommender, "rank_items", fail)
    body = {"user_id": "u", "history": item_ids[3:6], "item_ids": item_ids[:2]}
    assert client.post("/v1/rank", json=body).status_code == 500
    [row] = logged(watched).to_dicts()
    assert (row["status"], row["num_items"]) == (500, None)
    assert row["release"] == watched.models.of("live").release


def test_requests_of_nobody_and_of_several_users_are_not_logged(
    watched: RecommenderService, client: TestClient, item_ids: list[str]
) -> None:
    one = {"user_id": "u", "history": item_ids[3:6]}
    nobody = {"history": item_ids[3:6]}
    assert client.post("/v1/recommend", json=nobody).status_code == 200
    assert client.post("/v1/batch", json={"requests": [one, nobody]}).status_code == 200
    assert client.post("/v1/recommend", json=one).status_code == 200
    assert logged(watched)["user_id"].to_list() == ["u"]

"""Served models that follow a registry: a promoted one answers, a bad one never does."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ray_jobs import models, promote, rollback
from recsys.artifact import Artifact
from recsys.config import ServeArgs
from recsys.engine.recommender import Recommender
from recsys.registry import Golden, Registry, Version
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.serving.release import GOLDEN_TOP_K, NUM_GOLDEN, check_golden, golden_requests
from tests.serving.conftest import OPEN, make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray


@pytest.fixture(scope="module")
def recommender(toy_models: Models) -> Recommender:
    return toy_models.of("live").recommender


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def args(registry: Registry) -> ServeArgs:
    return ServeArgs(registry=registry.uri, registry_poll_s=3_600, search=False, security=OPEN)


def register(
    registry: Registry, checkpoint: Artifact, index: Artifact, golden: list[Golden]
) -> Version:
    return registry.register(checkpoint, index, golden, now=0.0)


def test_golden_requests_are_answered_by_the_model_that_made_them(
    recommender: Recommender, item_ids: list[str]
) -> None:
    golden = golden_requests(recommender, item_ids)
    assert len(golden) == NUM_GOLDEN
    assert all(len(one.answer) == GOLDEN_TOP_K for one in golden)
    check_golden(recommender, golden)


def test_golden_requests_do_not_depend_on_whether_seen_items_are_filtered(
    recommender: Recommender, toy_checkpoint: Artifact, toy_index: Artifact, item_ids: list[str]
) -> None:
    golden = golden_requests(recommender, item_ids)
    check_golden(Recommender.load(toy_checkpoint, toy_index, filter_seen=False), golden)


def test_promotion_rollback_and_the_list_go_together(
    registry: Registry, toy_checkpoint: Artifact, toy_index: Artifact
) -> None:
    asked = promote.Arguments(registry.uri, toy_checkpoint.uri, toy_index.uri, wait_s=0)
    first = promote.run(asked)
    assert promote.run(asked).previous == first.version
    [version] = registry.versions()
    assert len(version.golden) == NUM_GOLDEN
    back = rollback.run(rollback.Arguments(registry.uri, wait_s=0))
    assert (back.version, back.generation) == (first.version, 3)
    assert list(models.listed(registry).columns[-1].cells) == ["live"]
    with pytest.raises(ValueError, match="show takes 1"):
        models.run(models.Arguments("show", registry.uri))


def test_other_answers_to_golden_requests_are_told(
    recommender: Recommender, item_ids: list[str]
) -> None:
    golden = golden_requests(recommender, item_ids)
    others = [
        Golden(history=one.history, answer=two.answer)
        for one, two in zip(golden, golden[1:] + golden[:1], strict=True)
    ]
    with pytest.raises(ValueError, match="golden requests are answered with"):
        check_golden(recommender, others)


def test_nothing_live_is_told(args: ServeArgs) -> None:
    with pytest.raises(ValueError, match=r"ray_jobs\.promote"):
        Models.load(args)


def test_the_live_version_is_served_and_a_bad_candidate_is_not(
    args: ServeArgs,
    registry: Registry,
    recommender: Recommender,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
    item_ids: list[str],
) -> None:
    golden = golden_requests(recommender, item_ids)
    version = register(registry, toy_checkpoint, toy_index, golden)
    registry.point("live", version.name, now=0.0)
    served = Models.load(args)
    assert served.of("live").version == toy_checkpoint.digest
    assert served.of("candidate") is served.of("live")

    # The same artifacts, registered with answers that they do not give.
    place = Path(registry.uri) / "versions" / "bad.json"
    wrong = [one.model_copy(update={"answer": ["nothing"]}) for one in golden]
    bad = version.model_copy(update={"name": "bad", "golden": wrong})
    place.write_text(bad.model_dump_json())
    registry.point("live", "bad", now=0.0)
    before = served.of("live")
    for follower in served._followers:
        follower.step()
    assert served.of("live") is before
    assert [refusal.version for refusal in served.refused] == ["bad"]
    with TestClient(build_http(make_service(args, served))) as client:
        assert "golden" in client.get("/v1/model").json()["refused"]["bad"]
        assert client.post("/v1/recommend", json={"history": []}).status_code == 200


def test_a_version_that_is_bad_at_the_start_stops_the_start(
    args: ServeArgs, registry: Registry, toy_checkpoint: Artifact, toy_index: Artifact
) -> None:
    wrong = [Golden(history=[], answer=["nothing"])]
    version = register(registry, toy_checkpoint, toy_index, wrong)
    registry.point("live", version.name, now=0.0)
    with pytest.raises(ValueError, match="golden requests"):
        Models.load(args)

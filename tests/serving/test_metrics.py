"""What is counted of requests: every stage, what answered, what was missing, and no id in a tag."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient

from recsys.config import ServeArgs, StoreConfig
from recsys.schema import Answer, Recommendation
from recsys.serving import metrics
from recsys.serving.drift import WINDOW
from recsys.serving.http import build_http
from recsys.serving.metrics import COVERAGE_EVERY, ServingMetrics
from recsys.serving.models import Models
from tests.serving.conftest import make_service
from tests.serving.recorded import Recorded

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
SECRET = "alice-7731"
HIT_MISS = ("hit", "miss")
SOURCES = ("model", "popular")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What the service records from here on."""
    kept = Recorded()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, kept.kind)
    return kept


@pytest.fixture
def asked(recorded: Recorded, toy_args: ServeArgs, toy_models: Models) -> Iterator[TestClient]:
    """A client of a service that records."""
    args = toy_args.model_copy(update={"store": StoreConfig(url="sqlite://")})
    with TestClient(build_http(make_service(args, toy_models))) as client:
        yield client


def post(client: TestClient, path: str, **body) -> None:
    assert client.post(path, json=body).status_code == 200


def test_every_stage_of_an_answer_is_timed_and_a_cached_one_has_fewer(
    asked: TestClient, recorded: Recorded, item_ids: list[str]
) -> None:
    body = {"history": item_ids[:2], "filters": [{"column": "price", "minimum": 0}]}
    stages = ("history", "recommend", "compute", "filter", "encode", "score")

    def times() -> list[int]:
        return [len(recorded.of("recsys_stage_latency_ms", stage=stage)) for stage in stages]

    post(asked, "/v1/recommend", **body)
    assert times() == [1, 1, 1, 1, 1, 1]
    post(asked, "/v1/recommend", **body)
    assert times() == [2, 1, 1, 1, 1, 1]
    hits = [len(recorded.of("recsys_cache_total", cache="answers", outcome=o)) for o in HIT_MISS]
    assert hits == [1, 1]
    assert recorded.of("recsys_batch_requests") == [1]
    [outer], [inner] = (recorded.of("recsys_stage_latency_ms", stage=s) for s in stages[1:3])
    assert outer >= inner >= 0


def test_answers_are_counted_by_what_made_them_and_unknown_items_beside(
    asked: TestClient, recorded: Recorded, item_ids: list[str]
) -> None:
    post(asked, "/v1/recommend", history=[item_ids[0], "gone-1", "gone-2"])
    post(asked, "/v1/recommend", history=[])
    post(asked, "/v1/search", text="red hat", history=["gone-3"], personal=0.5)
    by_source = {
        s: recorded.of("recsys_answers_total", route="recommend", source=s) for s in SOURCES
    }
    assert by_source == {"model": [1], "popular": [1]}
    assert recorded.of("recsys_unknown_items_total", route="recommend") == [2]
    assert recorded.of("recsys_unknown_items_total", route="search") == [1]
    # A popular item's score is a share of events, not a cosine.
    assert len(recorded.of("recsys_top_score", route="recommend")) == 1


def test_no_tag_holds_what_was_sent(asked: TestClient, recorded: Recorded) -> None:
    event = {"user_id": SECRET, "item_id": SECRET, "event": SECRET}
    post(asked, "/v1/events", events=[event])
    post(asked, "/v1/recommend", user_id=SECRET, history=[SECRET], context={SECRET: SECRET})
    post(asked, "/v1/search", text=SECRET)
    asked.get(f"/v1/items/{SECRET}")
    assert recorded.names()["recsys_answers_total"] == 2
    assert SECRET not in str(recorded.values)


def answer(*item_ids: str) -> Answer:
    return Answer([Recommendation(item_id, 0.5) for item_id in item_ids], "model")


def test_coverage_is_the_share_of_the_catalogue_that_was_answered(
    recorded: Recorded, toy_models: Models
) -> None:
    counted, model = ServingMetrics(), toy_models.of("live")
    for number in range(2 * COVERAGE_EVERY):
        counted.answered("recommend", answer("a", f"b{number % 3}"), model)
    share = 4 / model.recommender.num_items
    assert recorded.of("recsys_coverage_share") == [share, share]


def test_a_shift_of_scores_is_told_for_the_version_that_shifts(recorded: Recorded) -> None:
    counted, random = ServingMetrics(), np.random.default_rng(0)

    def score(version: str, mean: float) -> None:
        for value in random.normal(mean, 0.1, WINDOW):
            counted.scored("live", version, float(value))

    score("v1", 0.4)
    score("v1", 0.7)
    zero, moved = recorded.of("recsys_score_drift", alias="live")
    assert zero == 0
    assert moved > 0.25
    score("v2", 0.7)
    score("v2", 0.7)
    zero, same = recorded.of("recsys_score_drift", alias="live")[2:]
    assert zero == 0
    assert same < 0.1

"""Experiments over ASGI: variants stick, change what is answered, and are logged."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from recsys.config import FeedbackConfig, ServeArgs
from recsys.serving import experiment_file
from recsys.serving.experiment_file import ExperimentFile
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.storage import read_bytes
from tests.serving.conftest import make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
TOML = """
[[experiments]]
name = "variety"
salt = "one"
variants = [
  {name = "control", share = 0.5},
  {name = "varied", share = 0.5, max_per_category = 1},
]
"""


@pytest.fixture
def args(toy_args: ServeArgs, tmp_path: Path) -> ServeArgs:
    (tmp_path / "experiments.toml").write_text(TOML)
    log = FeedbackConfig(uri=str(tmp_path / "feedback"), spool=str(tmp_path / "spool"))
    changed = {"experiments": str(tmp_path / "experiments.toml"), "feedback": log}
    return toy_args.model_copy(update=changed)


def test_variants_stick_and_answer_differently(
    args: ServeArgs, toy_models: Models, item_ids: list[str]
) -> None:
    service = make_service(args, toy_models)
    recommender = toy_models.of("live").recommender
    variants = {}
    with TestClient(build_http(service)) as client:
        for number in range(20):
            body = {"user_id": f"u{number}", "history": item_ids[3:6], "top_k": 12}
            answers = [client.post("/v1/recommend", json=body).json() for _ in range(2)]
            assert answers[0]["variants"] == answers[1]["variants"]
            variants[f"u{number}"] = answers[0]["variants"]["variety"]
            ids = [item["item_id"] for item in answers[0]["items"]]
            kinds = Counter(recommender.item(i)["attributes"]["category"] for i in ids)
            assert (max(kinds.values()) == 1) == (variants[f"u{number}"] == "varied")
        nobody = client.post("/v1/recommend", json={"history": item_ids[3:6]}).json()
    assert set(variants.values()) == {"control", "varied"}
    assert nobody["variants"] == {}
    shown = pq.ParquetDataset(Path(args.feedback.uri) / "exposures").read().to_pylist()
    assert len(shown) == 40
    assert {row["user_id"]: row["variant"] for row in shown} == variants


def test_a_changed_file_holds_from_the_next_look_and_a_broken_one_does_not(tmp_path: Path) -> None:
    clock = [0.0]
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    file = ExperimentFile(str(path), now=lambda: clock[0])
    assert set(file.variants_of("u")) == {"variety"}
    path.write_text("[[experiments]]\nname = 3")
    clock[0] += 5
    assert set(file.variants_of("u")) == {"variety"}
    path.write_text("")
    clock[0] += 5
    assert file.variants_of("u") == {}


def test_a_file_in_an_object_store_is_read_by_one_thread_and_no_request_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, answers = [0.0], threading.Event()
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    file = ExperimentFile(path.as_uri(), now=lambda: clock[0])

    def read_slowly(uri: str) -> bytes:
        assert answers.wait(10)
        return read_bytes(uri)

    monkeypatch.setattr(experiment_file, "read_bytes", read_slowly)
    path.write_text("")
    looks = []
    for _ in range(3):
        clock[0] += experiment_file.LOOK_FAR_EVERY_S
        assert set(file.variants_of("u")) == {"variety"}
        looks.append([each for each in threading.enumerate() if each.name == "experiments"])
    answers.set()
    for look in looks[0]:
        look.join(10)
    assert len(looks[0]) == 1
    assert file.variants_of("u") == {}


def test_a_broken_first_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text("[[experiments]]\nname = 3")
    with pytest.raises(ValueError, match="experiments"):
        ExperimentFile(str(path))

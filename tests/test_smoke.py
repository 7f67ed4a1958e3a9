"""The main job as a person runs it, with a real language model, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from ray_jobs.local_cluster import LocalCluster
from recsys.artifact import open_artifact
from recsys.config import WorldConfig
from recsys.data.synthetic import generate, write_world

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[1]
CONFIG = """
[prepare]
max_history = 20
max_item_tokens = 48
[training]
epochs = 8
global_batch_size = 32
"""
MARGIN = 2.0
"""On this world popularity finds the next item in about 1 of 12 cases, the truth in over 5."""


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _heads() -> set[int]:
    """Processes of Rays that `LocalCluster` started."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        if any("/tmp/ray-" in part for part in process.info["cmdline"] or []):
            found.add(process.info["pid"])
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output directory and the printed text of one demo."""
    folder = tmp_path_factory.mktemp("demo")
    write_world(generate(WorldConfig(num_users=900, num_items=200)), folder / "world")
    (folder / "small.toml").write_text(CONFIG)
    before = _heads()
    done = _run(
        "ray_jobs.demo",
        *("--data", str(folder / "world"), "--config", str(folder / "small.toml")),
        *("--output", str(folder / "out")),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert _heads() == before, "the demo left processes behind"
    return folder, done.stdout


def test_the_demo_answers_with_titles_and_reasons_and_searches(demo: tuple[Path, str]) -> None:
    _, printed = demo
    recommended, found = printed.split("/v1/recommend")[1].split("/v1/search")
    assert '"source": "model"' in recommended
    assert recommended.count('"why": {') == recommended.count('"score":') == 5
    assert '"source": "search"' in found
    assert found.count('"lexical_rank":') == found.count('"score":') == 3
    assert "report/report.html" in printed


def test_the_generated_world_is_learned(demo: tuple[Path, str]) -> None:
    report = open_artifact(demo[0] / "out/report", "report").read_json("report.json")
    scores = {name: segments["all"] for name, segments in report["models"].items()}
    assert set(scores) == {"model", "popularity", "id_only"}
    assert scores["model"]["users"] == 900
    assert scores["model"]["recall@10"] > MARGIN * scores["popularity"]["recall@10"]
    for cutoff in (1, 5, 10, 20, 50, 100):
        for metric in ("recall", "ndcg", "mrr", "hit_rate", "coverage"):
            assert 0 <= scores["model"][f"{metric}@{cutoff}"] <= 1


def test_the_pipeline_keeps_what_is_there_and_prints_the_report_last(
    demo: tuple[Path, str],
) -> None:
    folder, _ = demo
    flags = ["--config", str(folder / "small.toml"), "--data", str(folder / "world")]
    done = _run("ray_jobs.pipeline", *flags, "--output", str(folder / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(folder / "out/report")
    assert done.stderr.count("kept, it was made with the same config") == 5
    assert json.loads((folder / "out/report/report.json").read_text())["split"]["part"] == "test"


def test_jobs_are_refused_without_the_token() -> None:
    with LocalCluster() as cluster:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{cluster.address}/api/jobs/", timeout=10)
        assert refused.value.code == 401
        refused.value.close()
        assert cluster.answers(f"{cluster.address}/api/jobs/")

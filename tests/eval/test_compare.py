"""Comparing reports: who wins, how sure that is, and which reports cannot be compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import EvaluationConfig
from recsys.eval.compare import Side, compare
from recsys.eval.row_scores import ROWS, RowScores
from tests.html_page import Page

ROOT = Path(__file__).parents[2]
NUM_ROWS = 300
FIRST = np.random.default_rng(0).random((NUM_ROWS, 3)).astype(np.float32) * 0.5
GROUP = "user:country=日本<b>"


def write_report(
    place: Path,
    values: np.ndarray = FIRST,
    dataset: str = "d" * 64,
    rows: dict[str, np.ndarray] | None = None,
    **config: object,
) -> Artifact:
    """A report as `evaluate` writes it, with a model of these values and a popularity of zeros."""
    rows = rows or {"all": np.arange(len(values)), GROUP: np.arange(0, len(values), 3)}
    scores = {segment: values[numbers] for segment, numbers in rows.items()}
    zeros = {segment: np.zeros_like(found) for segment, found in scores.items()}
    writer = ArtifactWriter(str(place), "report")
    writer.add_table(ROWS, RowScores(rows, {"model": scores, "popularity": zeros}).to_table())
    settings = EvaluationConfig().model_dump(mode="json") | config
    return writer.publish({"evaluation": settings}, {"dataset": dataset})


def compared(first: Artifact, second: Artifact, place: Path) -> dict:
    made = compare(Side(first), Side(second), str(place / "comparison"))
    assert open_artifact(made.uri, "comparison").digest == made.digest
    return made.read_json("comparison.json")


def test_a_model_that_is_better_everywhere_wins(tmp_path: Path) -> None:
    a, b = write_report(tmp_path / "a"), write_report(tmp_path / "b", FIRST + 0.1)
    found = compared(a, b, tmp_path)
    assert found["verdicts"][0] == "B is better: NDCG@10 +0.1000 [+0.1000, +0.1000], 95%"
    assert compared(b, a, tmp_path / "back")["verdicts"][0].startswith("A is better: NDCG@10 -0.1")
    metrics = found["segments"]["all"]["metrics"]
    assert metrics["ndcg@10"]["first"] == pytest.approx(FIRST[:, 1].mean())
    assert metrics["ndcg@10"]["second"] == pytest.approx(FIRST[:, 1].mean() + 0.1)
    assert metrics["recall@10"]["share_ahead"] == 1.0


def test_noise_is_no_win(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, FIRST.shape).astype(np.float32)
    a, b = write_report(tmp_path / "a"), write_report(tmp_path / "b", FIRST + noise)
    found = compared(a, b, tmp_path)
    ndcg = found["segments"]["all"]["metrics"]["ndcg@10"]
    assert ndcg["low"] < 0 < ndcg["high"]
    assert found["verdicts"][0].startswith("no difference is shown: NDCG@10")


def test_each_segment_is_compared_on_its_own_rows(tmp_path: Path) -> None:
    better = FIRST.copy()
    better[::3] += 0.3  # the rows of the group alone
    a, b = write_report(tmp_path / "a"), write_report(tmp_path / "b", better)
    found = compared(a, b, tmp_path)["segments"]
    assert (found["all"]["rows"], found[GROUP]["rows"]) == (NUM_ROWS, NUM_ROWS / 3)
    assert found[GROUP]["metrics"]["mrr@10"]["difference"] == pytest.approx(0.3, abs=1e-6)
    assert found["all"]["metrics"]["mrr@10"]["difference"] == pytest.approx(0.1, abs=1e-6)


def test_segments_of_other_rows_are_left_out_and_named(tmp_path: Path) -> None:
    rows = {"all": np.arange(NUM_ROWS), GROUP: np.arange(0, NUM_ROWS, 2), "mine": np.arange(9)}
    a, b = write_report(tmp_path / "a"), write_report(tmp_path / "b", rows=rows)
    found = compared(a, b, tmp_path)
    assert list(found["segments"]) == ["all"]
    assert found["left_out"] == ["mine", GROUP]


def test_two_models_of_one_report_can_be_compared(tmp_path: Path) -> None:
    report = write_report(tmp_path / "a")
    made = compare(Side(report, "popularity"), Side(report), str(tmp_path / "out"))
    assert made.read_json("comparison.json")["verdicts"][0].startswith("B is better")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"dataset": "e" * 64}, "cannot be compared, dataset is ddd.* and eee"),
        ({"split": "valid"}, "split is test and valid"),
        ({"filter_seen": True}, "filter_seen is False and True"),
    ],
)
def test_reports_over_other_rows_are_refused(tmp_path: Path, other: dict, message: str) -> None:
    a, b = write_report(tmp_path / "a"), write_report(tmp_path / "b", **other)
    with pytest.raises(ValueError, match=message):
        compared(a, b, tmp_path)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    report = write_report(tmp_path / "a")
    with pytest.raises(ValueError, match=r"no model \['als'\]; it has: model, popularity"):
        compare(Side(report), Side(report, "als"), str(tmp_path / "out"))


def test_a_report_without_rows_says_what_to_do(tmp_path: Path) -> None:
    config = {"evaluation": EvaluationConfig().model_dump(mode="json")}
    old = ArtifactWriter(str(tmp_path / "old"), "report").publish(config, {"dataset": "d" * 64})
    with pytest.raises(ValueError, match="evaluate again"):
        compare(Side(old), Side(old), str(tmp_path / "out"))


def test_the_page_is_well_formed_and_escapes_what_the_data_named(tmp_path: Path) -> None:
    a, b = write_report(tmp_path / "a"), write_report(tmp_path / "b", FIRST + 0.1)
    made = compare(Side(a), Side(b), str(tmp_path / "out"))
    page = Page(made.read_bytes("comparison.html").decode())
    assert "B is better: NDCG@10 +0.1000 [+0.1000, +0.1000], 95%" in page.words
    assert f"2. {GROUP}" in page.words
    assert "b" not in page.tags
    assert page.tags.count("svg") == 3


def test_the_program_prints_the_verdict_and_the_place_last(tmp_path: Path) -> None:
    write_report(tmp_path / "a")
    write_report(tmp_path / "b", FIRST + 0.1)
    flags = [f"--{name}={tmp_path / short}" for name, short in (("first", "a"), ("second", "b"))]
    command = [sys.executable, "-m", "ray_jobs.compare", *flags, f"--output={tmp_path / 'c'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[2] == "B is better: NDCG@10 +0.1000 [+0.1000, +0.1000], 95%"
    assert lines[-1] == str(tmp_path / "c")
    command[-2] = f"--second={tmp_path / 'nothing'}"
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")

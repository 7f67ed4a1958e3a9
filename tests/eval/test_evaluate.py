"""The evaluate stage on a real dataset, checkpoint and index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.artifact import Artifact
from recsys.config import EvaluationConfig
from recsys.eval.compare import Side, compare
from recsys.eval.evaluate import evaluate
from recsys.eval.row_scores import ROWS, read_row_scores
from tests.html_page import Page

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
CONFIG = EvaluationConfig(cutoffs=(5, 20), item_columns=("category",), min_group_size=5)


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory,
    toy_dataset: Artifact,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
) -> Artifact:
    """The report of the toy model."""
    place = str(tmp_path_factory.mktemp("report") / "report")
    return evaluate(CONFIG, toy_dataset, toy_checkpoint, toy_index, place)


def test_a_report_has_every_part(report: Artifact) -> None:
    found = report.read_json("report.json")
    assert list(found["models"]) == ["model", "popularity"]
    of_all = found["models"]["model"]["all"]
    families = ("recall", "precision", "map", "ndcg", "mrr", "hit_rate", "coverage", "gini")
    lists = ("novelty", "diversity", "serendipity", "popularity", "popularity_lift")
    assert {f"{name}@10" for name in (*families, *lists)} <= set(of_all)
    assert found["models"]["popularity"]["all"]["serendipity@10"] == 0.0
    low, high = found["confidence"]["models"]["model"]["ndcg@10"]
    assert low <= of_all["ndcg@10"] <= high
    groups = [name for name in found["models"]["model"] if name.startswith("item:category=")]
    assert len(groups) > 1
    words = Page(report.read_bytes("report.html").decode()).words
    assert {"Result", "Beyond accuracy", "By group", "Map of the items"} <= {*words}


def test_rows_are_kept_beside_the_page_and_not_in_it(report: Artifact) -> None:
    found = report.read_json("report.json")
    rows = read_row_scores(report, ["model"])
    values = rows.of("all")[:, 0]
    assert len(values) == found["split"]["rows"]
    assert values[:, 1].mean() == pytest.approx(found["models"]["model"]["all"]["ndcg@10"])
    assert np.array_equal(rows.rows["all"], np.arange(len(values)))
    assert ROWS not in report.read_bytes("report.html").decode()


def test_a_report_compared_with_itself_shows_no_difference(
    report: Artifact, tmp_path: Path
) -> None:
    made = compare(Side(report), Side(report), str(tmp_path / "same"))
    assert made.read_json("comparison.json")["verdicts"][0].startswith("no difference is shown")
    assert made.manifest.parents == {"first": report.digest, "second": report.digest}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_columns": ("country",)}, "has no users.parquet: name them in prepare.user_columns"),
        ({"item_columns": ("colour",)}, r"names \['colour'\].*it has: .*category"),
    ],
)
def test_columns_that_are_not_there_are_named(
    toy_dataset: Artifact,
    toy_checkpoint: Artifact,
    toy_index: Artifact,
    tmp_path: Path,
    columns: dict,
    message: str,
) -> None:
    config = EvaluationConfig(**columns)
    with pytest.raises(ValueError, match=message):
        evaluate(config, toy_dataset, toy_checkpoint, toy_index, str(tmp_path / "report"))

"""Intervals, margins and gaps of groups in a report, and the rows that they are made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.artifact import ArtifactWriter
from recsys.eval.confidence import confidence, fairness
from recsys.eval.row_scores import ROWS, RowScores, read_row_scores

GROUPS = {"user:country=A": 0.6, "user:country=B": 0.2, "user:country=C": 0.3}


def scores(num_rows: int = 600) -> RowScores:
    """A model that is right for A, a little less so for C and B, and one that is as bad for all."""
    rng = np.random.default_rng(0)
    numbers = np.array_split(np.arange(num_rows), 3)
    model = np.concatenate(
        [rng.random((len(n), 3)) < share for n, share in zip(numbers, GROUPS.values(), strict=True)]
    ).astype(np.float32)
    popularity = (rng.random((num_rows, 3)) < 0.2).astype(np.float32)
    rows = {"all": np.arange(num_rows)} | dict(zip(GROUPS, numbers, strict=True))
    rows |= {"user:country=other": np.arange(5), "user:country=unknown": np.arange(5, 9)}
    rows |= {"user:age=9": np.arange(7), "items:head": np.arange(3)}
    values = {"model": model, "popularity": popularity}
    return RowScores(
        rows, {m: {name: v[numbers] for name, numbers in rows.items()} for m, v in values.items()}
    )


def test_intervals_hold_the_means_and_margins_their_differences() -> None:
    given = scores()
    found = confidence(given, "model")
    means = given.of("all").mean(axis=0)
    for at, model in enumerate(given.models):
        for n, metric in enumerate(("recall@10", "ndcg@10", "mrr@10")):
            low, high = found["models"][model][metric]
            assert low < means[at, n] < high
    assert list(found["margins"]) == ["popularity"]
    margin = found["margins"]["popularity"]["ndcg@10"]
    assert margin["difference"] == pytest.approx(means[0, 1] - means[1, 1])
    assert 0 < margin["low"] < margin["difference"] < margin["high"]


def test_the_gap_is_between_the_best_and_the_worst_group() -> None:
    given = scores()
    found = fairness(given)
    assert list(found) == ["country"], "an age with one group has no gap"
    model = found["country"]["model"]
    assert (model["best"], model["worst"]) == ("A", "B")
    of = {name: given.of(f"user:country={name}")[:, 0, 1].mean() for name in "ABC"}
    assert model["gap"] == pytest.approx(of["A"] - of["B"])
    assert 0 < model["low"] < model["gap"] < model["high"]


def test_groups_that_are_alike_show_no_gap() -> None:
    found = fairness(scores())["country"]["popularity"]
    assert 0 <= found["gap"] < 0.1
    assert found["low"] < 0 < found["high"]


def test_there_is_no_fairness_without_user_columns() -> None:
    given = scores()
    rows = {name: rows for name, rows in given.rows.items() if not name.startswith("user:")}
    assert fairness(RowScores(rows, given.values)) == {}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    given = scores()
    writer = ArtifactWriter(str(tmp_path / "report"), "report")
    writer.add_table(ROWS, given.to_table())
    report = writer.publish({}, {})
    found = read_row_scores(report, ["popularity", "model"])
    assert found.models == ["popularity", "model"]
    assert list(found.rows) == list(given.rows)
    for name in given.rows:
        np.testing.assert_array_equal(found.rows[name], given.rows[name])
        np.testing.assert_array_equal(found.of(name)[:, ::-1], given.of(name))


def test_rows_name_neither_users_nor_items() -> None:
    names = scores().to_table().column_names
    assert names[:2] == ["segment", "row"]
    assert all(name.endswith("@10") for name in names[2:])

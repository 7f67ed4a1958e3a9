"""Ranking metrics: by hand, against ranx, and as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranx import Qrels, Run, evaluate

from recsys.metrics import catalogue_coverage, ranking_metrics

CUTOFFS = (1, 3, 5, 10)


def arrays(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row) for row in rows]


def test_values_by_hand() -> None:
    """Row 0 hits at ranks 2 and 4 of 3 targets; row 1 at rank 1 of 1; row 2 nowhere."""
    ranked = np.array([[7, 1, 8, 2, 9], [4, 0, 1, 2, 3], [1, 2, 3, 4, 5]])
    got = ranking_metrics(ranked, arrays([1, 2, 3], [4], [0]), [1, 2, 5])
    log3, log5 = math.log2(3), math.log2(5)
    expected = {
        "recall@1": [0, 1, 0],
        "recall@2": [1 / 3, 1, 0],
        "recall@5": [2 / 3, 1, 0],
        "precision@1": [0, 1, 0],
        "precision@2": [1 / 2, 1 / 2, 0],
        "precision@5": [2 / 5, 1 / 5, 0],
        "map@1": [0, 1, 0],
        "map@2": [(1 / 2) / 3, 1, 0],
        "map@5": [(1 / 2 + 2 / 4) / 3, 1, 0],
        "ndcg@1": [0, 1, 0],
        "ndcg@2": [(1 / log3) / (1 + 1 / log3), 1, 0],
        "ndcg@5": [(1 / log3 + 1 / log5) / (1 + 1 / log3 + 1 / 2), 1, 0],
        "mrr@1": [0, 1, 0],
        "mrr@2": [1 / 2, 1, 0],
        "mrr@5": [1 / 2, 1, 0],
        "hit_rate@1": [0, 1, 0],
        "hit_rate@2": [1, 1, 0],
        "hit_rate@5": [1, 1, 0],
    }
    assert set(got) == set(expected)
    for name, values in expected.items():
        assert got[name].dtype == np.float64
        np.testing.assert_allclose(got[name], values, atol=1e-12, err_msg=name)


def test_short_ranking_ends() -> None:
    """K = 2 at k = 5: the ideal still counts all three targets."""
    got = ranking_metrics(np.array([[1, 2]]), arrays([1, 2, 3]), [5])
    log3 = math.log2(3)
    assert got["recall@5"][0] == pytest.approx(2 / 3)
    assert got["ndcg@5"][0] == pytest.approx((1 + 1 / log3) / (1 + 1 / log3 + 1 / 2))


def test_filler_hits_nothing() -> None:
    """-1 in row 1 must not be taken for the last item of row 0."""
    got = ranking_metrics(np.array([[0, 5, -1], [-1, -1, -1]]), arrays([5], [5]), [3])
    assert got["recall@3"].tolist() == [1.0, 0.0]
    assert got["mrr@3"].tolist() == [0.5, 0.0]


def test_no_rows() -> None:
    got = ranking_metrics(np.empty((0, 4), dtype=np.int64), [], [2])
    assert all(values.shape == (0,) for values in got.values())


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning")
def test_agrees_with_ranx() -> None:
    rng = np.random.default_rng(0)
    ranked = np.stack([rng.permutation(40)[:12] for _ in range(60)])
    targets = [rng.permutation(40)[: rng.integers(1, 8)] for _ in range(60)]
    # Ids are padded so that ranx, which sorts queries by name, keeps our order of rows.
    qrels = Qrels({f"q{r:03}": {str(i): 1 for i in row} for r, row in enumerate(targets)})
    run = Run(
        {f"q{r:03}": {str(i): 12.0 - n for n, i in enumerate(row)} for r, row in enumerate(ranked)}
    )
    got = ranking_metrics(ranked, targets, CUTOFFS)
    theirs = evaluate(qrels, run, list(got), return_mean=False)
    assert len(got) == 6 * len(CUTOFFS)
    for name, values in got.items():
        np.testing.assert_allclose(values, theirs[name], rtol=0, atol=1e-9, err_msg=name)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray]]:
    num_rows, num_ranks = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    items = st.permutations(range(20))
    ranked = [draw(items)[:num_ranks] for _ in range(num_rows)]
    targets = [draw(items)[: draw(st.integers(1, 8))] for _ in range(num_rows)]
    return np.array(ranked), arrays(*targets)


@given(cases())
def test_bounds_and_growth_in_k(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    got = ranking_metrics(*case, CUTOFFS)
    for values in got.values():
        assert np.all((values >= 0) & (values <= 1 + 1e-12))
    for name in ("recall", "map", "mrr", "hit_rate"):
        by_k = np.stack([got[f"{name}@{k}"] for k in CUTOFFS])
        assert np.all(np.diff(by_k, axis=0) >= 0)
    for k in CUTOFFS:
        assert np.all(got[f"mrr@{k}"] <= got[f"hit_rate@{k}"])
        assert np.all(got[f"map@{k}"] <= got[f"recall@{k}"] + 1e-12)
        assert np.array_equal(got[f"recall@{k}"] > 0, got[f"hit_rate@{k}"] == 1)


@given(cases())
def test_order_of_targets_does_not_matter(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    ranked, targets = case
    got = ranking_metrics(ranked, targets, CUTOFFS)
    turned = ranking_metrics(ranked, [row[::-1] for row in targets], CUTOFFS)
    assert all(np.array_equal(got[name], turned[name]) for name in got)


@given(cases())
def test_rows_do_not_touch_each_other(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    ranked, targets = case
    together = ranking_metrics(ranked, targets, CUTOFFS)
    for row in range(len(ranked)):
        alone = ranking_metrics(ranked[row : row + 1], targets[row : row + 1], CUTOFFS)
        for name, values in together.items():
            assert alone[name][0] == pytest.approx(values[row], abs=1e-12)


@given(cases())
def test_ideal_ranking_has_ndcg_one(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    _, targets = case
    ranked = np.full((len(targets), 10), -1)
    for row, items in enumerate(targets):
        ranked[row, : len(items)] = items
    got = ranking_metrics(ranked, targets, CUTOFFS)
    np.testing.assert_allclose([got[f"ndcg@{k}"] for k in CUTOFFS], 1.0)


def test_coverage_by_hand() -> None:
    ranked = np.array([[0, 1, 2], [1, 0, 9], [3, -1, -1]])
    assert catalogue_coverage(ranked, 10, 1) == pytest.approx(0.3)
    assert catalogue_coverage(ranked, 10, 2) == pytest.approx(0.3)
    assert catalogue_coverage(ranked, 10, 3) == pytest.approx(0.5)
    assert catalogue_coverage(ranked, 10, 50) == pytest.approx(0.5)
    assert catalogue_coverage(np.empty((0, 3), dtype=np.int64), 10, 3) == 0.0


@pytest.mark.parametrize(
    ("ranked", "targets", "cutoffs", "message"),
    [
        ([[1, 2], [3, 4]], [[1], []], [1], r"targets\[1\] is empty"),
        ([[]], [[1]], [1], "K is 0"),
        ([1, 2], [[1], [2]], [1], r"not of shape \(2,\)"),
        ([[1, 2]], [[1], [2]], [1], "1 rows but targets has 2"),
        ([[1.0, 2.0]], [[1]], [1], "integer item indexes, not float64"),
        ([[1, 2]], [[1.5]], [1], "integer item indexes, not float64"),
        ([[1, 2]], [[-1]], [1], "negative item_index -1"),
        ([[1, -2]], [[1]], [1], "ranked holds -2"),
        ([[1, 2], [4, 4]], [[1], [4]], [1], r"ranked\[1\] holds item_index 4 more than once"),
        ([[1, 2], [4, 5]], [[1], [3, 3]], [1], r"targets\[1\] holds item_index 3 more than once"),
        ([[1, 2]], [[1]], [0], "cutoffs must be"),
        ([[1, 2]], [[1]], [], "cutoffs must be"),
    ],
)
def test_refuses(ranked: list, targets: list, cutoffs: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranking_metrics(np.array(ranked), arrays(*targets), cutoffs)


@pytest.mark.parametrize(
    ("num_items", "k", "message"),
    [(0, 1, "num_items is 0"), (2, 2, "item_index 5 is outside"), (9, 0, "cutoffs must be")],
)
def test_coverage_refuses(num_items: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalogue_coverage(np.array([[0, 5]]), num_items, k)

"""What rankings are like beside being right: by hand, against scikit-learn, at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances

from recsys.eval.beyond_accuracy import (
    diversity,
    gini_of_exposure,
    novelty,
    popularity,
    popularity_lift,
    popularity_percentiles,
    serendipity,
)

NOTHING = [-1, -1, -1]


def test_gini_is_zero_for_even_exposure_and_high_for_one_item() -> None:
    even = np.array([[0, 1], [2, 3]])
    assert gini_of_exposure(even, 4, 2) == pytest.approx(0.0)
    # One of n items has it all: (n - 1) / n.
    assert gini_of_exposure(np.array([[2], [2], [2]]), 4, 1) == pytest.approx(3 / 4)


def test_gini_by_hand() -> None:
    # Exposures 0 0 1 3: (-3*0 - 1*0 + 1*1 + 3*3) / (4 * 4).
    ranked = np.array([[3, 1], [3, -1], [3, -1]])
    assert gini_of_exposure(ranked, 4, 2) == pytest.approx(10 / 16)
    # At k = 1 item 1 is not shown.
    assert gini_of_exposure(ranked, 4, 1) == pytest.approx(3 / 4)


def test_gini_equals_the_mean_absolute_difference() -> None:
    ranked = np.random.default_rng(0).integers(0, 30, (50, 1))
    shown = np.bincount(ranked.ravel(), minlength=40).astype(float)
    pairs = np.abs(shown[:, None] - shown[None, :]).mean() / (2 * shown.mean())
    assert gini_of_exposure(ranked, 40, 1) == pytest.approx(pairs)


def test_gini_of_nothing_is_unknown() -> None:
    assert np.isnan(gini_of_exposure(np.array([NOTHING]), 4, 3))


def test_novelty_is_the_mean_information_of_the_shown_items() -> None:
    counts = np.array([8, 4, 4, 0])  # shares 1/2, 1/4, 1/4; item 3 counts as one event of 16
    got = novelty(np.array([[0, 1, 3], [2, -1, -1], NOTHING]), counts, 3)
    np.testing.assert_allclose(got, [(1 + 2 + 4) / 3, 2, np.nan])
    assert novelty(np.array([[0, 1, 3]]), counts, 2) == pytest.approx([1.5])


def test_diversity_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8)) * rng.uniform(0.1, 9, (30, 1))
    ranked = np.stack([rng.permutation(30)[:6] for _ in range(20)])
    got = diversity(ranked, lambda items: vectors[items], 5)
    upper = np.triu_indices(5, 1)
    theirs = [cosine_distances(vectors[row[:5]])[upper].mean() for row in ranked]
    np.testing.assert_allclose(got, theirs, atol=1e-12)


def test_diversity_of_short_lists() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    ranked = np.array([[0, 1, -1], [0, 2, -1], [1, -1, -1], NOTHING])
    got = diversity(ranked, lambda items: vectors[items], 3)
    np.testing.assert_allclose(got, [1, 0, np.nan, np.nan], atol=1e-12)


def test_diversity_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(1).normal(size=(9, 3))
    ranked = np.random.default_rng(2).permuted(np.tile(np.arange(9), (7, 1)), axis=1)
    whole = diversity(ranked, lambda items: vectors[items], 4)
    monkeypatch.setattr("recsys.eval.beyond_accuracy.CHUNK_ROWS", 3)
    np.testing.assert_array_equal(diversity(ranked, lambda items: vectors[items], 4), whole)


def test_serendipity_counts_hits_that_the_popular_list_of_the_row_lacks() -> None:
    ranked = np.array([[5, 1, 7], [5, 1, 7], [5, 1, 7]])
    popular = np.array([[1, 2, 5], [9, 8, 7], [-1, -1, -1]])
    targets = [np.array([1, 7]), np.array([1]), np.array([3])]
    np.testing.assert_allclose(serendipity(ranked, popular, targets, 3), [1 / 3, 1 / 3, 0])
    # In the first two of the lists item 1 is a hit; in row 0 the popular list has it as well.
    np.testing.assert_allclose(serendipity(ranked, popular, targets, 2), [0, 1 / 2, 0])


def test_the_popularity_ranking_surprises_nobody() -> None:
    popular = np.array([[3, 1, -1], [2, 0, 1]])
    got = serendipity(popular, popular, [np.array([1]), np.array([2, 0])], 3)
    assert got.tolist() == [0, 0]


def test_percentiles_put_equals_in_their_middle() -> None:
    got = popularity_percentiles(np.array([7, 0, 3, 3]))
    np.testing.assert_allclose(got, [7 / 8, 1 / 8, 4 / 8, 4 / 8])


def test_popularity_lift_is_against_the_rows_own_history() -> None:
    counts = np.array([7, 0, 3, 3])
    ranked = np.array([[0, 2], [1, -1], [0, 1]])
    histories = [np.array([1, 1, 2]), np.array([0]), np.array([], dtype=np.int64)]
    np.testing.assert_allclose(popularity(ranked, counts, 2), [11 / 16, 1 / 8, 1 / 2])
    got = popularity_lift(ranked, histories, counts, 2)
    np.testing.assert_allclose(got, [11 / 16 - 6 / 24, 1 / 8 - 7 / 8, np.nan])

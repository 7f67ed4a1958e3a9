"""The index of a shift: near nothing for one distribution, large for another, known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.serving.drift import BINS, ScoreDrift


def windows(drift: ScoreDrift, *parts: np.ndarray) -> list[float | None]:
    """What is told after each part."""
    return [[drift.add(float(score)) for score in part][-1] for part in parts]


def test_scores_of_one_distribution_have_not_moved_and_shifted_ones_have() -> None:
    random = np.random.default_rng(0)
    first, same, moved = (random.normal(mean, 0.1, 2_000) for mean in (0.5, 0.5, 0.6))
    nothing, near, far = windows(ScoreDrift(), first, same, moved)
    assert nothing is None
    assert near is not None
    assert far is not None
    assert near < 0.02
    assert far > 0.25


def test_the_index_is_the_one_computed_by_hand() -> None:
    first = np.arange(100) / 100  # ten scores in each decile
    drift = ScoreDrift(window=100)
    _, told = windows(drift, first, np.full(100, 0.05))  # all in the first decile
    expected, low = 10.5 / 105, 0.5 / 105
    high = 100.5 / 105
    by_hand = (high - expected) * math.log(high / expected)
    by_hand += (BINS - 1) * (low - expected) * math.log(low / expected)
    assert told == pytest.approx(by_hand)


def test_tied_scores_are_expected_as_often_as_they_came() -> None:
    drift = ScoreDrift(window=100)
    first, turned = np.repeat([0.2, 0.9], [80, 20]), np.repeat([0.2, 0.9], [20, 80])
    _, told = windows(drift, first, turned)
    by_hand = 2 * (80.5 - 20.5) / 105 * math.log(80.5 / 20.5)
    assert told == pytest.approx(by_hand)


def test_equal_scores_are_no_shift_and_no_fault() -> None:
    same = np.full(50, 0.3)
    assert windows(ScoreDrift(window=50), same, same) == [None, 0.0]


def test_each_window_is_told_alone() -> None:
    random = np.random.default_rng(1)
    first, moved, back = (random.normal(mean, 0.1, 1_000) for mean in (0.5, 0.9, 0.5))
    _, far, near = windows(ScoreDrift(window=1_000), first, moved, back)
    assert far is not None
    assert near is not None
    assert near < 0.05 < 1.0 < far

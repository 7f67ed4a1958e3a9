"""The bootstrap: exact where it can be worked out, right as often as it says, always the same."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.eval.bootstrap import interval, paired_differences, resampled_means


def test_means_of_two_rows_fall_as_a_coin_does() -> None:
    """Two draws of two rows: both 0 in a quarter of all cases, mixed in half of them."""
    means = resampled_means(np.array([[0.0], [1.0]]), resamples=40_000)[:, 0]
    found = {value: (means == value).mean() for value in (0.0, 0.5, 1.0)}
    assert found == pytest.approx({0.0: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=0.01)


def test_the_spread_is_the_standard_error() -> None:
    values = np.random.default_rng(3).normal(size=(400, 2)) * [1, 5]
    means = resampled_means(values)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / 20, rtol=0.1)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        low, high = interval(resampled_means(rng.exponential(size=(60, 1)), 200, seed=trial))
        held += bool(low[0] <= 1 <= high[0])
    assert 0.89 <= held / 300 <= 0.98


def test_columns_share_the_drawn_rows() -> None:
    values = np.random.default_rng(0).random((50, 1))
    means = resampled_means(np.hstack([values, values, 1 - values]))
    np.testing.assert_array_equal(means[:, 0], means[:, 1])
    np.testing.assert_allclose(means[:, 0] + means[:, 2], 1)


def test_memory_does_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((37, 2))
    at_once = resampled_means(values, 20)
    monkeypatch.setattr("recsys.eval.bootstrap.DRAWN_AT_ONCE", 100)
    np.testing.assert_allclose(resampled_means(values, 20), at_once, rtol=1e-12)
    assert not np.array_equal(resampled_means(values, 20, seed=1), at_once)


def test_pairing_proves_what_two_intervals_cannot() -> None:
    """Rows differ a lot, the second model is a little better on nearly each of them."""
    rng = np.random.default_rng(0)
    first = rng.random((200, 1))
    second = first + rng.normal(0.02, 0.05, (200, 1))
    one, other = interval(resampled_means(first)), interval(resampled_means(second))
    assert one[1] > other[0], "the two intervals overlap"
    found = paired_differences(first, second)[0]
    assert 0 < found.low < found.difference < found.high
    assert found.difference == pytest.approx((second - first).mean())
    assert found.share_ahead > 0.99


def test_a_difference_turned_round_has_the_other_sign() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 3)), rng.random((40, 3))
    for there, back in zip(paired_differences(a, b), paired_differences(b, a), strict=True):
        assert back.difference == pytest.approx(-there.difference)
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
        assert back.share_ahead == pytest.approx(1 - there.share_ahead)


def test_equal_models_are_ahead_half_the_time() -> None:
    values = np.random.default_rng(0).random((30, 1))
    found = paired_differences(values, values)[0]
    assert (found.difference, found.low, found.high, found.share_ahead) == (0, 0, 0, 0.5)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((3, 1)), np.zeros((4, 1)), "not on the same rows"),
        (np.zeros((0, 1)), np.zeros((0, 1)), "at least a row"),
        (np.zeros((2, 1)), np.array([[1.0], [np.nan]]), "NaN or infinity"),
    ],
)
def test_refuses(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_differences(first, second)

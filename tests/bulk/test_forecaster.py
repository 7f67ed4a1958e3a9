"""Settings found where they are known, intervals that hold, and errors by hand."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nbinom, poisson

from recsys.bulk.daily_counts import DailyCounts
from recsys.bulk.forecast import forecast_table, window_ends
from recsys.bulk.forecast_quality import coverage, errors, judge
from recsys.bulk.forecaster import (
    EVEN_SHARE,
    HALF_LIVES,
    Calibration,
    Forecast,
    Settings,
    choose_settings,
    events_of,
    fit_scale,
    forecast_items,
    prior_shares,
)
from recsys.bulk.intervals import fit_dispersion, interval, log_likelihood
from recsys.bulk.rates import last_week

DAYS = 7


def made(
    num_items: int, num_days: int, dispersion: float, seed: int = 0
) -> tuple[DailyCounts, np.ndarray]:
    """Counts of items with steady rates, and the rates; a fifth of the items is new at the end."""
    random = np.random.default_rng(seed)
    rates = random.gamma(1.0, 2.0, num_items)
    weekdays = np.array([1.2, 1.0, 1.0, 0.8, 1.0, 1.5, 0.5])[np.arange(num_days) % 7]
    weeks = np.repeat(
        random.gamma(1 / dispersion, dispersion, (num_items, num_days // 7)), 7, axis=1
    )
    counts = random.poisson(rates[:, None] * weekdays * weeks).astype(np.float32)
    births = np.where(np.arange(num_items) % 5 == 0, random.integers(0, num_days, num_items), 0)
    counts[np.arange(num_days) < births[:, None]] = 0
    return DailyCounts(counts, 4, np.zeros(num_items, dtype=bool)), rates


def test_a_likelihood_is_that_of_the_distribution():
    actual, expected = np.array([0.0, 3, 7]), np.array([0.5, 2, 9])
    assert log_likelihood(actual, expected, 0.0) == pytest.approx(
        poisson.logpmf(actual, expected).sum()
    )
    wanted = nbinom.logpmf(actual, 2, 2 / (2 + expected)).sum()
    assert log_likelihood(actual, expected, 0.5) == pytest.approx(wanted)


def test_a_count_where_none_is_expected_is_unlikely_but_not_impossible():
    assert math.isfinite(log_likelihood(np.array([3.0]), np.array([0.0]), 0.0))


@pytest.mark.parametrize("dispersion", [0.0, 0.3, 2.0])
def test_dispersion_is_found(dispersion):
    random = np.random.default_rng(1)
    mean = random.gamma(2.0, 3.0, 20_000)
    actual = random.poisson(mean)
    if dispersion:
        actual = random.negative_binomial(1 / dispersion, 1 / (1 + dispersion * mean))
    assert fit_dispersion(actual, mean) == pytest.approx(dispersion, rel=0.35, abs=0.01)


def test_without_counts_a_level_changes_nothing():
    nothing = np.zeros(0)
    assert (fit_dispersion(nothing, nothing), fit_scale(nothing, nothing)) == (0.0, 1.0)
    assert fit_scale(np.array([3.0]), np.array([7.0])) == 0.5


@settings(deadline=None, max_examples=50)
@given(
    mean=st.floats(0, 50),
    dispersion=st.sampled_from([0.0, 0.2, 3.0]),
    wanted=st.sampled_from([0.5, 0.9]),
)
def test_an_interval_holds_its_probability(mean, dispersion, wanted):
    low, high = interval(np.array([mean]), np.array([dispersion]), wanted)
    true = poisson(mean) if not dispersion else nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    assert true.cdf(high[0]) - true.cdf(low[0] - 1) >= wanted - 1e-4
    assert low[0] <= high[0]


def test_held_out_counts_lie_in_the_intervals_as_often_as_told():
    daily, _ = made(600, 140, dispersion=0.3)
    *ends, test = window_ends(daily.num_days, DAYS, 4)
    priors = {end: prior_shares(600, None) for end in (*ends, test)}
    chosen = choose_settings(daily, ends, DAYS, priors)
    assert chosen.half_life >= HALF_LIVES[-2]  # the rates are steady
    assert 0.15 < chosen.known.dispersion < 0.6
    found = forecast_items(chosen, daily, test, DAYS, priors[test], 0.9)
    actual = events_of(daily, test, DAYS)
    judged = judge(actual, found, last_week(daily, test, DAYS))
    assert 0.86 < judged["intervals"]["busy"]["coverage"] < 0.97
    assert judged["forecast"]["rmse"] < 0.9 * judged["last_week"]["rmse"]


def test_a_good_prior_tells_of_new_items_and_a_bad_one_is_made_little_of():
    daily, rates = made(600, 140, dispersion=0.1)
    ends, test = [105, 112, 119, 126], 133
    shares = rates / rates.sum()
    noise = np.random.default_rng(3).permutation(shares)
    found = {}
    for name, guess in (("good", shares), ("bad", noise)):
        priors = {end: prior_shares(600, guess) for end in (*ends, test)}
        chosen = choose_settings(daily, ends, DAYS, priors)
        found[name] = (chosen, forecast_items(chosen, daily, test, DAYS, priors[test], 0.9))
    assert found["good"][0].strength > 4 * found["bad"][0].strength
    actual = events_of(daily, test, DAYS)
    off = {n: errors(actual, f.expected)["rmse"] for n, (_, f) in found.items()}
    assert off["good"] < off["bad"]


def test_new_items_have_the_prior_and_a_level_of_their_own():
    counts = np.array([[2.0] * 14, [0.0] * 14], dtype=np.float32)
    daily = DailyCounts(counts, 4, np.zeros(2, dtype=bool))
    chosen = Settings(7.0, 14.0, 0.0, Calibration(1.0, 0.0), Calibration(0.5, 1.0))
    made_of = forecast_items(chosen, daily, 14, DAYS, np.array([0.5, 0.5]), 0.9)
    assert made_of.expected.tolist() == pytest.approx([14.0, 3.5])
    assert made_of.is_new.tolist() == [False, True]
    assert made_of.by_own_counts.tolist() == [True, False]
    # Poisson(14) and a negative binomial of mean 3.5 and dispersion 1, at 5% and 95%.
    assert list(zip(made_of.low.tolist(), made_of.high.tolist(), strict=True)) == [(8, 20), (0, 11)]


def test_a_prior_gives_all_events_away():
    assert prior_shares(4, None).tolist() == [0.25] * 4
    found = prior_shares(10, np.eye(10)[3])
    assert found.sum() == pytest.approx(1.0)
    assert found[0] == pytest.approx(EVEN_SHARE / 10)


def test_windows_lie_end_to_end_and_the_last_is_measured():
    assert window_ends(70, 7, 4) == [35, 42, 49, 56, 63]
    assert window_ends(70, 7, 4, first=50) == [56, 63]
    assert window_ends(21, 7, 4) == [7, 14]
    for lack in ((20, 7, 4), (70, 7, 4, 57), (70, 40, 4)):
        with pytest.raises(ValueError, match="two held-out windows"):
            window_ends(*lack)


def test_errors_by_hand():
    found = errors(np.array([0.0, 2, 6]), np.array([1.0, 2, 3]))
    wanted = {"mae": 4 / 3, "rmse": math.sqrt(10 / 3), "wape": 0.5, "bias": -0.25}
    assert found == pytest.approx(wanted)
    nothing = errors(np.zeros(2), np.ones(2))
    assert (nothing["mae"], nothing["wape"], nothing["bias"]) == (1.0, None, None)


def test_coverage_counts_both_bounds_in():
    bounds = [np.array([1, 0, 2]), np.array([3, 0, 4])]
    told = Forecast(
        np.array([2.0, 0.1, 3.0]), *bounds, np.ones(3, bool), np.array([False, True, False])
    )
    found = coverage(np.array([3.0, 1.0, 2.0]), told)
    assert found["all"] == {"items": 3, "coverage": 2 / 3, "mean_width": 4 / 3}
    assert found["busy"] == {"items": 2, "coverage": 1.0, "mean_width": 2.0}
    assert found["new"] == {"items": 1, "coverage": 0.0, "mean_width": 0.0}


def test_a_row_says_where_its_number_comes_from():
    told = Forecast(
        np.array([2.0, 0.1]), *[np.array([0, 0])] * 2, np.array([True, False]), np.zeros(2, bool)
    )
    rows = forecast_table(pa.array(["a", "茶"], pa.large_string()), told, "recommender").to_pylist()
    assert [(row["item_id"], row["source"]) for row in rows] == [
        ("a", "history"),
        ("茶", "recommender"),
    ]

"""Intervals that hold the truth as often as they say, checked where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from recsys.experiments.differences import (
    Sample,
    always_valid_p_value,
    always_valid_radius,
    compare,
    quantile,
)
from tests.experiments.made_logs import clicking_users

RUNS, USERS = 400, 400
EFFECT = 0.02


def runs(lift: float, seed: int) -> list[tuple[Sample, Sample]]:
    rng = np.random.default_rng(seed)
    return [(clicking_users(rng, USERS), clicking_users(rng, USERS, lift)) for _ in range(RUNS)]


def without_covariate(sample: Sample) -> Sample:
    return Sample(sample.numerator, sample.denominator)


def expected_count(share: float) -> tuple[float, float]:
    """Bounds that a count of `RUNS` leaves once in a thousand runs."""
    return binom.interval(0.999, RUNS, share)


@pytest.mark.parametrize("lift", [0.0, EFFECT])
@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("adjusted", [False, True])
def test_intervals_hold_the_true_difference_as_often_as_they_say(lift, level, adjusted):
    pairs = runs(lift, seed=1)
    if not adjusted:
        pairs = [(without_covariate(a), without_covariate(b)) for a, b in pairs]
    found = [compare(a, b, level) for a, b in pairs]
    low, high = expected_count(level)
    assert low <= sum(each.low <= lift <= each.high for each in found) <= high
    if lift == 0:
        low, high = expected_count(1 - level)
        assert low <= sum(each.p_value < 1 - level for each in found) <= high


def test_items_shown_as_if_independent_would_be_too_sure():
    found = [compare(without_covariate(a), without_covariate(b), 0.95) for a, b in runs(0.0, 2)]
    naive = [
        np.hypot(*(np.sqrt(s.ratio * (1 - s.ratio) / s.denominator.sum()) for s in pair))
        for pair in runs(0.0, 2)
    ]
    misses = sum(abs(f.difference) > 1.96 * n for f, n in zip(found, naive, strict=True))
    assert misses > 2 * expected_count(0.05)[1]


def test_the_mean_of_each_group_lies_in_its_interval_as_often_as_it_says():
    held = [a.interval(0.95) for a, _ in runs(0.0, 3)]
    low, high = expected_count(0.95)
    assert low <= sum(low_end <= 0.2 <= high_end for low_end, high_end in held) <= high


def test_a_difference_by_hand():
    # Ratios 2/4 and 3/4 of one item a user: errors sqrt(1/3/4) and sqrt(1/4/4).
    first = Sample(np.array([1.0, 1, 0, 0]), np.ones(4))
    second = Sample(np.array([1.0, 1, 1, 0]), np.ones(4))
    found = compare(first, second, 0.95)
    assert (found.first, found.second, found.difference) == (0.5, 0.75, 0.25)
    assert found.error == pytest.approx(np.sqrt(1 / 12 + 1 / 16))
    assert found.high - found.difference == pytest.approx(1.959964 * found.error)
    assert found.variance_saved == 0


def test_what_was_known_before_lowers_the_variance_and_not_the_difference():
    pairs = runs(EFFECT, seed=4)
    adjusted = [compare(a, b, 0.95) for a, b in pairs]
    raw = [compare(without_covariate(a), without_covariate(b), 0.95) for a, b in pairs]
    spread = np.std([each.difference for each in adjusted]) / np.std([e.difference for e in raw])
    saved = np.mean([each.variance_saved for each in adjusted])
    assert saved > 0.05
    assert spread**2 == pytest.approx(1 - saved, abs=0.05)
    mean = np.mean([each.difference for each in adjusted])
    assert mean == pytest.approx(EFFECT, abs=4 * adjusted[0].error / np.sqrt(RUNS))


def test_a_covariate_that_tells_everything_leaves_no_doubt():
    rng = np.random.default_rng(5)
    before = rng.normal(size=600)
    value = 5 + 2 * before
    first, second = (
        Sample(value[s], np.ones(300), before[s]) for s in (slice(300), slice(300, None))
    )
    noisy = Sample(
        second.numerator + 1 + rng.normal(0, 0.01, 300), second.denominator, second.covariate
    )
    found = compare(first, noisy, 0.95)
    assert found.difference == pytest.approx(1, abs=0.01)
    assert found.variance_saved > 0.999


def test_a_covariate_without_spread_changes_nothing():
    a, b = runs(0.0, 6)[0]
    flat = [Sample(s.numerator, s.denominator, np.zeros(USERS)) for s in (a, b)]
    assert compare(*flat, 0.95) == compare(without_covariate(a), without_covariate(b), 0.95)


LOOKS = 25


def looks(rng: np.random.Generator, returning: bool) -> list[tuple[Sample, Sample]]:
    """What has come in at the end of each day, without any effect.

    New users each day, or the same users with more clicks and items shown each day.
    """
    days = [[clicking_users(rng, 40) for _ in range(LOOKS)] for _ in range(2)]
    if not returning:
        joined = [
            [
                np.concatenate([getattr(s, name) for s in group])
                for name in ("numerator", "denominator")
            ]
            for group in days
        ]
        ends = [40 * (day + 1) for day in range(2, LOOKS)]
        return [tuple(Sample(n[:end], d[:end]) for n, d in joined) for end in ends]
    sums = [
        [
            np.cumsum([getattr(s, name) for s in group], axis=0)
            for name in ("numerator", "denominator")
        ]
        for group in days
    ]
    return [tuple(Sample(n[day], d[day]) for n, d in sums) for day in range(2, LOOKS)]


@pytest.mark.parametrize("returning", [False, True])
def test_daily_looks_raise_no_more_false_alarms_than_alpha_only_where_it_is_sequential(returning):
    rng = np.random.default_rng(7)
    alarms = {"sequential": 0, "once": 0}
    for _ in range(200):
        series = looks(rng, returning)
        for kind, effect in (("sequential", 0.02), ("once", None)):
            found = [compare(*pair, 0.95, effect) for pair in series]
            alarms[kind] += any(each.low > 0 or each.high < 0 for each in found)
            assert all((each.p_value < 0.05) == (each.low * each.high > 0) for each in found)
    assert alarms["sequential"] <= binom.ppf(0.999, 200, 0.05)
    assert alarms["once"] > binom.ppf(0.999, 200, 0.05)


def test_the_sequential_interval_still_finds_an_effect():
    rng = np.random.default_rng(8)
    found = compare(clicking_users(rng, 6000), clicking_users(rng, 6000, 0.03), 0.95, effect=0.02)
    assert found.low > 0
    assert found.p_value < 0.01


def test_the_sequential_interval_is_narrowest_where_the_effect_is_found_once_with_power_080():
    errors = np.linspace(0.1, 1.0, 2000)
    widths = [always_valid_radius(1.0, 1.0 / error, 0.95) for error in errors]
    best = errors[int(np.argmin(widths))]
    assert 1 / best == pytest.approx(quantile(0.95) + 0.84, abs=0.1)
    assert min(widths) == pytest.approx(3.03, abs=0.01)


def test_the_sequential_p_value_reaches_alpha_at_the_end_of_the_interval():
    for effect in (0.1, 1.0, 5.0):
        radius = always_valid_radius(1.0, effect, 0.95)
        assert always_valid_p_value(radius, 1.0, effect) == pytest.approx(0.05)
        assert always_valid_p_value(0.0, 1.0, effect) == 1.0


def test_users_who_are_all_alike_give_no_interval():
    alike = Sample(np.ones(5), np.full(5, 2.0))
    with pytest.raises(ValueError, match="all users are alike"):
        compare(alike, alike, 0.95)
    with pytest.raises(ValueError, match="1 users"):
        compare(Sample(np.ones(1), np.ones(1)), alike, 0.95)

"""Estimates from the log of one policy for another, checked where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from recsys.config import AnalysisConfig
from recsys.experiments.offline import Log, doubly_robust, ips, snips, to_log
from recsys.experiments.outcomes import attribute
from tests.experiments.made_logs import START, exposure, to_table

RUNS, ROWS = 300, 1500
RATES = np.array([[0.05, 0.2, 0.4, 0.1], [0.5, 0.1, 0.02, 0.3]])
"""(2 kinds of users, 4 items): how likely a click is."""
LOGGING = np.array([[0.4, 0.3, 0.1, 0.2], [0.1, 0.4, 0.3, 0.2]])
NEW = np.array([[0.1, 0.2, 0.6, 0.1], [0.7, 0.1, 0.1, 0.1]])
TRUTH = float((NEW * RATES).sum(axis=1).mean())
ON_POLICY = float((LOGGING * RATES).sum(axis=1).mean())


@dataclass(frozen=True)
class World:
    """One drawn log: each user sees three items."""

    log: Log
    kinds: np.ndarray
    items: np.ndarray

    def robust(self, rates: np.ndarray, **more):
        """The doubly robust estimate by predicted rates (2, 4)."""
        expected = (NEW * rates).sum(axis=1)
        return doubly_robust(self.log, rates[self.kinds, self.items], expected[self.kinds], **more)


def draw(seed: int) -> World:
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(ROWS // 3), 3)
    kinds = rng.integers(2, size=ROWS // 3)[users]
    items = (rng.random(ROWS)[:, None] > LOGGING[kinds].cumsum(axis=1)[:, :3]).sum(axis=1)
    rewards = (rng.random(ROWS) < RATES[kinds, items]).astype(float)
    return World(Log(users, rewards, LOGGING[kinds, items], NEW[kinds, items]), kinds, items)


WORLDS = [draw(seed) for seed in range(RUNS)]
ROUGH = np.full((2, 4), 0.2)
METHODS = {
    "ips": lambda world: ips(world.log),
    "snips": lambda world: snips(world.log),
    "doubly_robust": lambda world: world.robust(RATES),
    "doubly_robust with wrong predictions": lambda world: world.robust(ROUGH),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_estimate_is_unbiased_and_its_interval_holds_the_truth(method):
    found = [METHODS[method](world) for world in WORLDS]
    values = np.array([each.value for each in found])
    assert abs(values.mean() - TRUTH) < 4 * values.std() / np.sqrt(RUNS)
    assert abs(TRUTH - ON_POLICY) > 20 * values.std() / np.sqrt(RUNS)
    held = sum(each.low <= TRUTH <= each.high for each in found)
    low, high = binom.interval(0.999, RUNS, 0.95)
    assert low <= held <= high


def test_good_predictions_make_the_doubly_robust_estimate_surer():
    spreads = {n: np.std([m(world).value for world in WORLDS]) for n, m in METHODS.items()}
    assert spreads["doubly_robust"] < 0.9 * spreads["ips"]
    assert spreads["snips"] < spreads["ips"]


def test_good_predictions_save_wrong_propensities():
    def wrong(world: World) -> World:
        return replace(world, log=replace(world.log, propensities=np.full(ROWS, 0.25)))

    robust = np.mean([wrong(world).robust(RATES).value for world in WORLDS])
    plain = np.mean([ips(wrong(world).log).value for world in WORLDS])
    assert abs(robust - TRUTH) < 0.005
    assert abs(plain - TRUTH) > 0.05


def test_the_policy_that_logged_is_worth_what_it_earned():
    log = replace(WORLDS[0].log, targets=WORLDS[0].log.propensities)
    for found in (ips(log), snips(log)):
        assert found.value == pytest.approx(log.rewards.mean())
        assert found.effective_rows == pytest.approx(ROWS)
        assert found.clipped == 0


def test_estimates_by_hand():
    log = Log(np.arange(2), np.array([1.0, 0.0]), np.array([0.5, 0.25]), np.array([1.0, 1.0]))
    assert ips(log).value == 1.0
    assert snips(log).value == pytest.approx(2 / 6)
    assert ips(log).effective_rows == pytest.approx(36 / 20)
    clipped = snips(log, clip=3.0)
    assert (clipped.value, clipped.clipped) == (pytest.approx(2 / 5), 0.5)
    robust = doubly_robust(log, np.array([0.5, 0.5]), np.array([0.4, 0.2]))
    assert robust.value == pytest.approx((0.4 + 2 * 0.5 + 0.2 - 4 * 0.5) / 2)


def test_clipping_takes_spread_and_gives_bias():
    free, cut = (np.array([ips(w.log, clip).value for w in WORLDS]) for clip in (np.inf, 2.0))
    assert cut.std() < free.std()
    assert cut.mean() < TRUTH - 0.02


@pytest.mark.parametrize(
    ("propensities", "told"),
    [
        ([np.nan, 0.5], "1 of 2 items shown have no propensity"),
        ([0.0, 0.5], "1 of 2 items"),
        ([1.5, -1.0], "2 of 2 items"),
        ([1.0, 1.0], "the logging policy had no choice"),
    ],
)
def test_a_log_without_probabilities_is_refused(propensities, told):
    with pytest.raises(ValueError, match=told):
        Log(np.arange(2), np.zeros(2), np.array(propensities), np.ones(2))


def test_a_policy_that_shows_nothing_of_the_log_cannot_be_judged():
    with pytest.raises(ValueError, match="shows nothing of what was logged"):
        ips(replace(WORLDS[0].log, targets=np.zeros(ROWS)))


def impressions(**more) -> pl.DataFrame:
    shown = pl.DataFrame(pl.from_arrow(to_table([exposure("u", **more), exposure("w", **more)])))
    kinds = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "event": pl.String}
    events = pl.DataFrame([("u", "y", START + 1, "click")], schema=kinds, orient="row")
    return attribute(shown, events, AnalysisConfig())[0]


TARGET = pl.DataFrame(
    {"request_id": [f"u-a-{START}"], "item_id": ["y"], "position": [2], "probability": [0.8]}
)


def test_a_logged_exposure_meets_the_new_policy_at_its_place():
    log = to_log(impressions(propensities=[0.5, 0.4]), TARGET)
    assert log.users.tolist() == ["u", "u", "w", "w"]
    assert log.rewards.tolist() == [0, 1, 0, 0]
    assert log.propensities.tolist() == [0.5, 0.4, 0.5, 0.4]
    assert log.targets.tolist() == [0, 0.8, 0, 0]
    assert ips(log).value == pytest.approx(2 / 4)
    with pytest.raises(ValueError, match="names a place twice"):
        to_log(impressions(propensities=[0.5, 0.4]), pl.concat([TARGET, TARGET]))


def test_logged_exposures_without_propensities_are_refused():
    with pytest.raises(ValueError, match="4 of 4 items shown have no propensity"):
        to_log(impressions(), TARGET)

"""Whether harm is seen, soon and only where it is; and what comes next after a look."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.config import CanaryConfig
from recsys.experiments.canary.evidence import Evidence
from recsys.experiments.canary.harm import find_harm
from recsys.experiments.canary.state import CanaryState, decide
from recsys.experiments.differences import always_valid_sign_p_value

CONFIG = CanaryConfig()
BEGAN = 1_750_000_000
STATE = CanaryState(
    experiment="canary", live="1", candidate="2", generation=1, share=0.05,
    began_at=BEGAN, step_began_at=BEGAN,
)  # fmt: skip


def side(variant: str, users: int, requests: int = 10, failing: int = 0, **more) -> Evidence:
    """Users who are alike; of each a tenth of the items shown is clicked on, some fail."""
    ids = [f"{variant}{n}" for n in range(users)]
    rows = pl.DataFrame(
        {
            "user_id": np.repeat(ids, requests),
            "variant": variant,
            "release": "1" if variant == "live" else "2",
            "timestamp": BEGAN + 10,
            "ms": np.tile(np.linspace(10, 50, requests), users) * more.get("slower", 1.0),
            "failed": [n < failing for n in range(users) for _ in range(requests)],
        }
    )
    clicks = np.zeros(users, dtype=int)
    clicks[: more.get("clicking", users // 10)] = 1
    shown = pl.DataFrame(
        {"user_id": ids, "variant": variant, "impressions": requests, "clicks": clicks}
    )
    return Evidence(rows, shown)


def both(live: Evidence, candidate: Evidence) -> Evidence:
    return Evidence(
        pl.concat([live.requests, candidate.requests]), pl.concat([live.clicks, candidate.clicks])
    )


def test_the_sign_test_is_robbins_mixture():
    # All of n on one side: 2^(n + 1) (1 - 2^-(n + 1)) / (n + 1), so (2^(n + 1) - 1) / (n + 1).
    assert always_valid_sign_p_value(11, 0) == pytest.approx(12 / (2**12 - 1))
    assert always_valid_sign_p_value(0, 0) == 1
    assert always_valid_sign_p_value(50, 50) == 1
    assert always_valid_sign_p_value(0, 5_000) == 1
    assert always_valid_sign_p_value(5_000, 0) < 1e-300


def test_the_sign_test_looked_at_after_every_user_alarms_as_seldom_as_it_says():
    rng = np.random.default_rng(1)
    steps = rng.random((400, 200)) < 0.5
    counts = np.cumsum(steps, axis=1)
    alarms = sum(
        any(always_valid_sign_p_value(int(k), n + 1 - int(k)) < 0.05 for n, k in enumerate(row))
        for row in counts
    )
    assert 1 <= alarms <= 0.05 * 400


@pytest.mark.parametrize(
    ("candidate", "word"),
    [
        (side("candidate", 300), None),
        (side("candidate", 300, failing=9), None),
        (side("candidate", 300, failing=10), "failed"),
        (side("candidate", 300, slower=3.0), "live's p99"),
        (side("candidate", 300, slower=1.2), None),
        (side("candidate", 300, clicking=0), "CTR"),
        (side("candidate", 120), "some are lost"),
    ],
)
def test_harm_is_named_and_the_harmless_passes(candidate: Evidence, word: str | None):
    harm = find_harm(both(side("live", 300), candidate), CONFIG)
    assert [word in each for each in harm] == [True] * (word is not None)


def test_where_all_users_fail_now_and_then_the_ratio_tells():
    rng = np.random.default_rng(2)

    def often(variant: str, share: float) -> Evidence:
        rows = side(variant, 300, requests=50).requests
        failed = pl.Series("failed", rng.random(len(rows)) < share)
        return Evidence(rows.with_columns(failed), side(variant, 300).clicks)

    assert find_harm(both(often("live", 0.2), often("candidate", 0.2)), CONFIG) == []
    [harm] = find_harm(both(often("live", 0.2), often("candidate", 0.25)), CONFIG)
    assert "failed" in harm
    assert "live, +0.0" in harm


def test_equal_models_looked_at_often_are_rolled_back_as_seldom_as_the_level_says():
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(20):
        rows, shown = [], []
        for users in (60, 120, 240):
            sides = [side(variant, users, requests=20) for variant in ("live", "candidate")]
            evidence = both(*sides)
            each = rng.random(2 * users)  # users differ in how often they fail
            chance = np.repeat(0.2 * each**4, 20)
            failed = pl.Series("failed", rng.random(len(chance)) < chance)
            ms = pl.Series("ms", rng.lognormal(3, 0.5, len(chance)))
            rows.append(evidence.requests.with_columns(failed, ms, pl.col("user_id") + str(users)))
            clicks = pl.Series("clicks", rng.binomial(20, 0.3 * each))
            shown.append(evidence.clicks.with_columns(clicks, pl.col("user_id") + str(users)))
            alarm = find_harm(Evidence(pl.concat(rows), pl.concat(shown)), CONFIG)
            if alarm:
                break
        alarms += bool(alarm)
    assert alarms <= 2


def test_a_step_is_over_when_it_was_long_enough_and_had_enough_requests():
    evidence = both(side("live", 1_000, clicking=100), side("candidate", 1_000))
    few = both(side("live", 1_000, clicking=99), side("candidate", 1_000))
    hold, most = CONFIG.hold_s, CONFIG.max_step_s
    assert decide(STATE, evidence, CONFIG, BEGAN + hold - 1).share == 0.05
    step = decide(STATE, evidence, CONFIG, BEGAN + hold)
    assert (step.share, step.in_file, step.step_began_at) == (0.25, False, BEGAN + hold)
    assert decide(STATE, few, CONFIG, BEGAN + hold).reason == "99 of 100 clicks"
    assert decide(STATE, few, CONFIG, BEGAN + most).outcome == "rolling back"
    # The requests of the step before are not those of this one.
    again = decide(step, evidence, CONFIG, BEGAN + 2 * hold)
    assert (again.outcome, again.reason) == ("running", "0 of 2,000 requests")
    last = STATE.but(share=0.25)
    assert decide(last, evidence, CONFIG, BEGAN + hold).outcome == "promoting"

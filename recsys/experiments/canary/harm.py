"""Whether a candidate is shown to be worse than the live model: failures, slowness, clicks.

As many users get the one as the other, and users are the unit: what happens to one user is not
independent. Each measure has two tests, both of them right at every look. The first counts the
users on either side to whom it ever happened, which is exact for a handful too; the second compares
ratios, which goes on telling where it happens to everybody now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys import schema
from recsys.config import CanaryConfig
from recsys.experiments.analysis import MISMATCH_LEVEL
from recsys.experiments.canary.evidence import QUANTILE, SIDES, Evidence
from recsys.experiments.differences import (
    LEAST_EVENTS,
    Sample,
    always_valid_sign_p_value,
    compare,
)

LEAST_USERS = 100
"""Of each side, before ratios are compared: their intervals hold for many."""
SHARE_EFFECT = 0.01
"""Difference of a share of requests that is found soonest: a hundredth of them, as many as are
beyond the p99."""
NUM_TESTS = 6
"""Two of each of three measures; each is given so much of the chance of a false alarm."""


@dataclass(frozen=True)
class Measure:
    """Something that happens to users: how often to each of both sides, of how many times.

    `is_harm` is false where it is good, as a click is. `effect` is the difference of the ratio that
    is found soonest.
    """

    name: str
    live: Sample
    candidate: Sample
    effect: float
    is_harm: bool = True


def find_harm(evidence: Evidence, config: CanaryConfig) -> list[str]:
    """What is shown to be worse, in words; empty where nothing is."""
    told = [_uneven(evidence)]
    alpha = (1 - config.level) / NUM_TESTS
    for measure in _measures(evidence, config):
        told.append(_by_users(measure, alpha) or _by_ratio(measure, alpha))
    return [each for each in told if each]


def _uneven(evidence: Evidence) -> str:
    """Users are divided into halves; if they are not, some of a side's are missing in the log."""
    live, candidate = (_num_users(evidence.of(side).requests) for side in SIDES)
    p_value = always_valid_sign_p_value(max(live, candidate), min(live, candidate))
    if p_value >= MISMATCH_LEVEL / 2:  # either side may be the larger one
        return ""
    return f"the log has {candidate:,} users of the candidate and {live:,} of live: some are lost"


def _num_users(rows: pl.DataFrame) -> int:
    return rows[schema.USER_ID].n_unique()


def _measures(evidence: Evidence, config: CanaryConfig) -> Iterator[Measure]:
    live, candidate = (evidence.of(side).requests for side in SIDES)
    if live.is_empty() or candidate.is_empty():
        return
    failed = [_sample(rows, pl.col("failed")) for rows in (live, candidate)]
    yield Measure("requests that failed or had no items", failed[0], failed[1], SHARE_EFFECT)
    if len(live) >= LEAST_EVENTS / (1 - QUANTILE):
        yield _slowness(live, candidate, config.max_slowdown)
    clicks = [_clicks(evidence.of(side).clicks) for side in SIDES]
    if all(len(sample.denominator) for sample in clicks):
        effect = config.expected_loss * clicks[0].ratio
        yield Measure("CTR", clicks[0], clicks[1], effect, is_harm=False)


def _slowness(live: pl.DataFrame, candidate: pl.DataFrame, max_slowdown: float) -> Measure:
    """Requests beyond live's p99, and of the candidate those beyond it by more than is let through.

    The candidate's p99 is within its bound if and only if no larger share of them is beyond.
    """
    bound = live["ms"].quantile(QUANTILE, "higher")
    assert bound is not None
    allowed = bound * (1 + max_slowdown)
    return Measure(
        f"requests over {bound:.0f} ms, which is live's p99, or {allowed:.0f} ms of the candidate",
        _sample(live, pl.col("ms") > bound),
        _sample(candidate, pl.col("ms") > allowed),
        SHARE_EFFECT,
    )


def _sample(requests: pl.DataFrame, happened: pl.Expr) -> Sample:
    users = requests.group_by(schema.USER_ID, maintain_order=True).agg(
        happened.sum().alias("hits"), pl.len().alias("requests")
    )
    return Sample(_floats(users["hits"]), _floats(users["requests"]))


def _clicks(users: pl.DataFrame) -> Sample:
    return Sample(_floats(users["clicks"]), _floats(users["impressions"]))


def _floats(values: pl.Series) -> np.ndarray:
    return values.to_numpy().astype(np.float64)


def _by_users(measure: Measure, alpha: float) -> str:
    live, candidate = (
        int((side.numerator > 0).sum()) for side in (measure.live, measure.candidate)
    )
    more, fewer = (candidate, live) if measure.is_harm else (live, candidate)
    if always_valid_sign_p_value(more, fewer) >= alpha:
        return ""
    return f"{measure.name}: {candidate:,} users of the candidate and {live:,} of live have any"


def _by_ratio(measure: Measure, alpha: float) -> str:
    sides = measure.live, measure.candidate
    if not all(side.tells and len(side.numerator) >= LEAST_USERS for side in sides):
        return ""
    found = compare(*sides, level=1 - 2 * alpha, effect=measure.effect)
    if (found.low <= 0) if measure.is_harm else (found.high >= 0):
        return ""
    return (
        f"{measure.name}: {found.second:.4f} against {found.first:.4f} live, "
        f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    )

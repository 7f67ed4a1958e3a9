"""What a policy would earn, judged from the log of another: before anybody sees it.

Each row is one item shown at one place, with its reward (clicked or not), the probability with
which the logging policy put it there, and that with which the new policy would. A place's reward is
taken to depend on its item alone: Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen, "Offline
evaluation of ranking policies with click models", KDD 2018, item-position model.

The answer is the mean reward a place. Each estimator is a ratio of sums over users, so
`differences` says how sure it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys import schema
from recsys.experiments.differences import Sample
from recsys.experiments.exposures import REQUEST_ID

PROBABILITY = "probability"
_AT = [REQUEST_ID, schema.ITEM_ID, "position"]


@dataclass(frozen=True)
class Log:
    """N items shown: each array is (N,).

    `users` are labels of any kind; `propensities` and `targets` are the probabilities of the item
    at its place under the logging and under the new policy.

    Raises:
        ValueError: propensities are unknown, outside (0, 1], or all 1; or lengths differ.
    """

    users: np.ndarray
    rewards: np.ndarray
    propensities: np.ndarray
    targets: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(v) for v in (self.users, self.rewards, self.propensities, self.targets)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(f"arrays must have one length above 0, not {sorted(lengths)}")
        _check_propensities(self.propensities)
        if not ((self.targets >= 0) & (self.targets <= 1)).all():
            raise ValueError("target probabilities must lie in [0, 1]")

    def weights(self, clip: float) -> np.ndarray:
        """How much more often the new policy shows each item; at most `clip`."""
        return np.minimum(self.targets / self.propensities, clip)


def to_log(impressions: pl.DataFrame, target: pl.DataFrame) -> Log:
    """The clicks of `outcomes.attribute` beside the probabilities of a new policy.

    `target` has request_id, item_id, position and probability; what it lacks, the new policy never
    shows.

    Raises:
        ValueError: the log has no propensities, or `target` names a place twice.
    """
    if target.select(_AT).is_duplicated().any():
        raise ValueError(f"the target policy names a place twice: each {', '.join(_AT)} once")
    places = target.select(*_AT[:2], pl.col(_AT[2]).cast(pl.Int32), PROBABILITY)
    rows = impressions.with_columns(pl.col(_AT[2]).cast(pl.Int32)).join(
        places, on=_AT, how="left", maintain_order="left"
    )
    return Log(
        users=rows[schema.USER_ID].to_numpy(),
        rewards=rows["clicked"].to_numpy().astype(np.float64),
        propensities=rows["propensity"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        targets=rows[PROBABILITY].fill_null(0.0).to_numpy(),
    )


def _check_propensities(propensities: np.ndarray) -> None:
    known = (propensities > 0) & (propensities <= 1)
    if not known.all():
        raise ValueError(
            f"{int((~known).sum())} of {len(known)} items shown have no propensity in (0, 1]: "
            "without the probability of what was shown nothing can be told of another policy; "
            "serve a share of the traffic with exploration, and log its probabilities"
        )
    if (propensities == 1).all():
        raise ValueError(
            "every propensity is 1: the logging policy had no choice, so its log says nothing of "
            "other items; serve a share of the traffic with exploration"
        )


@dataclass(frozen=True)
class Estimate:
    """Mean reward of a place, with its interval.

    `effective_rows` is what the rows are worth: (sum w)^2 / sum w^2 (Kong 1992). `clipped` is the
    share of rows whose weight was cut, which makes the value biased, most often too low.
    """

    value: float
    low: float
    high: float
    effective_rows: float
    clipped: float


def on_policy(log: Log, level: float = 0.95) -> Estimate:
    """The mean reward of the policy that was logged, to hold the others against."""
    same = Log(log.users, log.rewards, log.propensities, log.propensities)
    return ips(same, level=level)


def ips(log: Log, clip: float = np.inf, level: float = 0.95) -> Estimate:
    """Inverse propensity scoring: mean(w r). Horvitz & Thompson, 1952; clipped: Ionides, 2008."""
    weights = log.weights(clip)
    return _estimate(log, weights * log.rewards, np.ones(len(weights)), clip, level)


def snips(log: Log, clip: float = np.inf, level: float = 0.95) -> Estimate:
    """Self-normalised: sum(w r) / sum(w). Less spread, and a bias that falls as 1 / rows.

    Swaminathan & Joachims, "The self-normalized estimator for counterfactual learning", 2015.
    """
    weights = log.weights(clip)
    return _estimate(log, weights * log.rewards, weights, clip, level)


def doubly_robust(
    log: Log,
    predicted: np.ndarray,
    predicted_target: np.ndarray,
    clip: float = np.inf,
    level: float = 0.95,
) -> Estimate:
    """mean(q_new + w (r - q)): right where either the propensities or the predictions are.

    Dudik, Langford & Li, "Doubly robust policy evaluation and learning", ICML 2011.

    Args:
        log: what was shown.
        predicted: (N,) q, the expected reward of the item shown.
        predicted_target: (N,) q_new, the expected reward of the place under the new policy: the
            mean of q over the items that it may put there.
        clip: largest weight.
        level: how sure the interval is.
    """
    terms = predicted_target + log.weights(clip) * (log.rewards - predicted)
    return _estimate(log, terms, np.ones(len(terms)), clip, level)


def _estimate(
    log: Log, numerator: np.ndarray, denominator: np.ndarray, clip: float, level: float
) -> Estimate:
    weights = log.weights(clip)
    if not weights.any():
        raise ValueError("the new policy shows nothing of what was logged: nothing can be told")
    _, user = np.unique(log.users, return_inverse=True)
    sums = [np.bincount(user, weights=values) for values in (numerator, denominator)]
    sample = Sample(*sums)
    low, high = sample.interval(level)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    clipped = float((log.weights(np.inf) > clip).mean())
    return Estimate(sample.ratio, low, high, effective, clipped)

"""How far two groups of users differ in a ratio such as clicks / items shown, and how sure that is.

Users are divided at random, items shown to one user are not independent: so the user is the unit.
With x the numerator and y the denominator of each user, R = sum(x) / sum(y) has by the delta method
the variance of a mean of U independent values

    z = R + (x - R y) / mean(y)

(Deng, Knoblich & Lu, "Applying the delta method in metric analytics", KDD 2018).
Everything here works on z: its mean is R, its standard error is that of R.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import betainc, betaln, ndtr, ndtri

LEAST_EVENTS = 10
"""Successes and failures a group needs before its mean is taken for normal: Fleiss, Levin & Paik,
"Statistical methods for rates and proportions", 2003, ask for 5 of each."""


@dataclass(frozen=True)
class Sample:
    """One group: numerator, denominator and what was known before, each (U,) with a value a user.

    `covariate` must be known before the group was drawn, such as clicks of the month before.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    covariate: np.ndarray | None = None

    @property
    def ratio(self) -> float:
        """sum(numerator) / sum(denominator)."""
        return float(self.numerator.sum() / self.denominator.sum())

    @property
    def tells(self) -> bool:
        """Whether there is enough of the group to take its mean for normal."""
        hits = float(self.numerator.sum())
        if min(hits, float(self.denominator.sum()) - hits) < LEAST_EVENTS:
            return False
        return bool(np.ptp(self.contributions()) > 0)

    def contributions(self) -> np.ndarray:
        """(U,) z: values whose mean is the ratio and whose spread is its uncertainty."""
        excess = self.numerator - self.ratio * self.denominator
        return self.ratio + excess / self.denominator.mean()

    def interval(self, level: float) -> tuple[float, float]:
        """Where the ratio lies."""
        radius = quantile(level) * standard_error(self.contributions())
        return self.ratio - radius, self.ratio + radius


@dataclass(frozen=True)
class Difference:
    """How far the ratio of a second group is above that of a first.

    `low` and `high` hold the true difference at the level asked for. `error` is the standard error.
    `variance_saved` is the share of the variance that the covariates explained; `difference` is
    adjusted for them, so it may be a little off `second - first`.
    """

    first: float
    second: float
    difference: float
    error: float
    low: float
    high: float
    p_value: float
    variance_saved: float

    def to_json(self) -> dict[str, float]:
        """As it stands in a report."""
        return asdict(self)


def compare(first: Sample, second: Sample, level: float, effect: float | None = None) -> Difference:
    """The difference of two groups.

    Args:
        first: the control.
        second: the variant.
        level: how sure the interval is, such as 0.95.
        effect: None for a test that is looked at once; else the absolute difference that the
            experiment was planned for: the interval then holds the truth at all looks together.

    Raises:
        ValueError: a group has fewer than two users, or all users are alike, so that nothing says
            how sure the difference is.
    """
    raw = math.hypot(*(standard_error(each.contributions()) for each in (first, second)))
    z_first, z_second = _adjusted(first, second)
    error = math.hypot(standard_error(z_first), standard_error(z_second))
    if not error > 0:
        raise ValueError("all users are alike: there is no spread to judge a difference by")
    found = float(z_second.mean() - z_first.mean())
    if effect is None:
        radius, p_value = quantile(level) * error, float(2 * ndtr(-abs(found) / error))
    else:
        radius = always_valid_radius(error, effect, level)
        p_value = always_valid_p_value(found, error, effect)
    saved = 1 - (error / raw) ** 2
    return Difference(
        first.ratio, second.ratio, found, error, found - radius, found + radius, p_value, saved
    )


def _adjusted(first: Sample, second: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Both groups' z without what the covariate c explains: z - theta (c - mean(c) of all).

    CUPED: Deng, Xu, Kohavi & Walker, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data", WSDM 2013; theta = cov(z, c) / var(c) within the groups.
    """
    groups = [(each.contributions(), each.covariate) for each in (first, second)]
    (z_first, c_first), (z_second, c_second) = groups
    if c_first is None or c_second is None:
        return z_first, z_second
    spread = sum(float(((c - c.mean()) ** 2).sum()) for c in (c_first, c_second))
    if spread == 0:
        return z_first, z_second
    shared = float(z_first @ (c_first - c_first.mean()) + z_second @ (c_second - c_second.mean()))
    theta, middle = shared / spread, np.concatenate([c_first, c_second]).mean()
    return z_first - theta * (c_first - middle), z_second - theta * (c_second - middle)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of independent values.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(values) < 2:
        raise ValueError(f"a group has {len(values)} users; a spread needs two")
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def quantile(level: float) -> float:
    """How many standard errors an interval reaches to each side: 1.96 at 0.95."""
    return float(ndtri((1 + level) / 2))


def always_valid_radius(error: float, effect: float, level: float) -> float:
    """Half the width of an interval that may be looked at after every user.

    With standard error s and a normal mixture of scale tau over the difference, at gain
    g = (tau / s)^2 the radius is s sqrt((1 + g) / g (log(1 + g) - 2 log(1 - level))):
    Robbins, "Statistical methods related to the law of the iterated logarithm", 1970;
    for estimates that are normal in the limit, Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics,
    2024. It is narrowest near g = 8, where a test that looks once finds the effect
    tau with a power of 0.8.
    """
    gain = (effect / error) ** 2
    return error * math.sqrt((1 + gain) / gain * (math.log1p(gain) - 2 * math.log(1 - level)))


def always_valid_p_value(difference: float, error: float, effect: float) -> float:
    """The p-value to that interval, 1 / the mixture likelihood ratio (mSPRT).

    Johari, Koomen, Pekelis & Walsh, "Always valid inference: continuous monitoring of A/B tests",
    Operations Research 70(3), 2022.
    """
    gain = (effect / error) ** 2
    score = (difference / error) ** 2
    return min(1.0, math.exp(math.log1p(gain) / 2 - score * gain / (2 * (1 + gain))))


def always_valid_sign_p_value(more: int, fewer: int) -> float:
    """How likely so many more users on the first of two equal sides are by chance, at any look.

    Of users who are divided at random into halves, and to whom the same happens on either side, a
    half is on the first, one after the other. The p-value is 1 / the likelihood ratio of n users, k
    on the first side, mixed evenly over all shares above a half,

        2^(n + 1) integral from 1/2 to 1 of t^k (1 - t)^(n - k) dt,

    a test of Robbins' and Ville's kind (Johari et al. 2022, as above): exact for few users too.
    """
    a, b = more + 1, fewer + 1
    above = float(betainc(b, a, 0.5))  # the Beta(a, b) share above 1/2
    if above == 0:
        return 1.0
    logarithm = (more + fewer + 1) * math.log(2) + float(betaln(a, b)) + math.log(above)
    return math.exp(min(0.0, -logarithm))

"""How far counts lie from what was expected: the negative binomial distribution.

A count with mean m and dispersion f has variance m + f m^2 ("NB2" of Cameron & Trivedi,
"Regression analysis of count data", 2nd edition, section 3.3); f = 0 is Poisson.

Shapes: N items.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, xlogy
from scipy.stats import nbinom, poisson

LEAST_MEAN = 1e-6
"""Of no item it is certain that nobody takes it: one event in a million windows."""
DISPERSIONS = (0.0, *np.geomspace(1e-3, 100.0, 41).tolist())
"""What dispersions are tried: each a third more than the one before, to 100, where a mean of 1
has its standard deviation of 10."""


def log_likelihood(actual: np.ndarray, expected: np.ndarray, dispersion: float) -> float:
    """The natural logarithm of the probability of counts, all together."""
    mean = np.maximum(expected, LEAST_MEAN)
    if not dispersion:
        return float(np.sum(xlogy(actual, mean) - mean - gammaln(actual + 1)))
    size = 1.0 / dispersion
    # log1p, as the plain logarithm of size / (size + mean) loses all digits for a small mean.
    terms = gammaln(actual + size) - gammaln(size) - gammaln(actual + 1)
    terms += xlogy(actual, mean / (size + mean)) - size * np.log1p(mean / size)
    return float(terms.sum())


def fit_dispersion(actual: np.ndarray, expected: np.ndarray) -> float:
    """The most likely of `DISPERSIONS`; 0 where there are no counts."""
    return max(DISPERSIONS, key=lambda f: (log_likelihood(actual, expected, f), -f))


def interval(
    expected: np.ndarray, dispersion: np.ndarray, probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whole numbers low and high between which a count lies with at least `probability`.

    As much is left out below as above, at most. `dispersion` (N,) is each item's.
    """
    tail = (1 - probability) / 2
    mean = np.maximum(expected, LEAST_MEAN)
    size = 1.0 / np.maximum(dispersion, DISPERSIONS[1] / 10)
    bounds = [
        np.where(dispersion > 0, nbinom.ppf(q, size, size / (size + mean)), poisson.ppf(q, mean))
        for q in (tail, 1 - tail)
    ]
    return bounds[0].astype(np.int64), bounds[1].astype(np.int64)

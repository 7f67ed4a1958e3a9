"""How far a mean over rows can be trusted: percentile bootstrap, of one model and of two.

Rows are drawn with replacement, as many as there are; what the means of many such draws spread
over is the interval: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. All
columns share the drawn rows, so the difference of two columns is the paired bootstrap, in which
rows that are hard for both models take nothing from the proof.

Shapes: R rows, M columns, B resamples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

LEVEL = 0.95
"""How sure an interval is."""
RESAMPLES = 1000
"""At 95 % the ends lie at the 25th and the 975th of them: chapter 14 of Efron & Tibshirani."""
SEED = 0
DRAWN_AT_ONCE = 1 << 21
"""Rows drawn at once: 48 MB in all."""


@dataclass(frozen=True)
class Difference:
    """How far a second model is ahead of a first on the same rows.

    `low` and `high` hold the mean difference at `LEVEL`; `share_ahead` is the share of resamples
    in which the second is ahead, of ties one half.
    """

    difference: float
    low: float
    high: float
    share_ahead: float

    def to_json(self) -> dict[str, float]:
        """As it stands in a report."""
        return asdict(self)


def resampled_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """(B, M) column means of `values` (R, M) over rows drawn anew for each resample.

    Raises:
        ValueError: there are no rows, or a value is not finite.
    """
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"values must be (rows, columns) with at least a row, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinity: leave such rows out of all columns")
    num_rows = len(values)
    rng = np.random.default_rng(seed)
    step = max(1, DRAWN_AT_ONCE // num_rows)
    means = [
        _how_often(rng, min(step, resamples - start), num_rows) @ values / num_rows
        for start in range(0, resamples, step)
    ]
    return np.concatenate(means)


def _how_often(rng: np.random.Generator, resamples: int, num_rows: int) -> np.ndarray:
    """(resamples, R) how often each row is drawn."""
    drawn = rng.integers(num_rows, size=(resamples, num_rows))
    drawn += num_rows * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * num_rows)
    return counts.reshape(resamples, num_rows).astype(np.float64)


def interval(means: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Low and high end (M,) of the middle `level` of resampled means (B, M)."""
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def difference(observed: float, means: np.ndarray) -> Difference:
    """The difference of two models, from what was observed and from (B,) resampled differences."""
    low, high = interval(means)
    ahead = float((means > 0).mean() + (means == 0).mean() / 2)
    return Difference(float(observed), float(low), float(high), ahead)


def paired_differences(first: np.ndarray, second: np.ndarray) -> list[Difference]:
    """How far `second` (R, M) is ahead of `first` (R, M), column by column, on the same rows.

    Raises:
        ValueError: the shapes differ, there are no rows, or a value is not finite.
    """
    if first.shape != second.shape:
        raise ValueError(f"the two are not on the same rows: {first.shape} and {second.shape}")
    ahead = second - first
    means = resampled_means(ahead)
    return [
        difference(observed, column)
        for observed, column in zip(ahead.mean(axis=0), means.T, strict=True)
    ]

"""From scores to probabilities: what share of the items with a score fits, as held-out lists tell.

Shapes: R rows, T steps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

NUM_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """A line that never falls: (T,) scores, ascending, and their probabilities."""

    scores: np.ndarray
    probabilities: np.ndarray

    def of(self, scores: np.ndarray) -> np.ndarray:
        """(R,) probabilities, those of the ends beyond them."""
        return np.interp(scores, self.scores, self.probabilities)

    def to_json(self) -> str:
        """As text."""
        rows = {"scores": self.scores.tolist(), "probabilities": self.probabilities.tolist()}
        return json.dumps(rows)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """What `to_json` gave."""
        rows = json.loads(text)
        return cls(np.array(rows["scores"]), np.array(rows["probabilities"]))


def fit_calibration(scores: np.ndarray, fits: np.ndarray) -> Calibration:
    """Isotonic regression of (R,) `fits`, 0 or 1, on scores.

    Zadrozny & Elkan, "Transforming classifier scores into accurate multiclass probability
    estimates", KDD 2002. Of clicks a row is the click over its place's examination, which
    may be above 1, and the mean of many is the chance of a click at the first place.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise ValueError("calibration needs scikit-learn: install recsys[rank]") from error
    line = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, fits)
    return Calibration(
        np.asarray(line.X_thresholds_, dtype=np.float64),
        np.asarray(line.y_thresholds_, dtype=np.float64),
    )


def calibration_error(probabilities: np.ndarray, fits: np.ndarray) -> float:
    """Mean distance of probability and share in `NUM_BINS` groups of equal size by probability.

    Naeini, Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
    AAAI 2015, with groups of equal size.
    """
    order = np.argsort(probabilities, kind="stable")
    pairs = zip(
        np.array_split(probabilities[order], NUM_BINS),
        np.array_split(fits[order], NUM_BINS),
        strict=True,
    )
    errors = [(len(p), abs(float(p.mean() - f.mean()))) for p, f in pairs if len(p)]
    return sum(size * error for size, error in errors) / len(probabilities)

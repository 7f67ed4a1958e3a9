"""How far the scores of a model have moved from those it began with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 2_000
"""Answers that are compared. Two samples of 2,000 from one distribution differ by 0.009 on average
(9 degrees of freedom times 2 / 2,000), far below the 0.1 from which a shift is told."""
BINS = 10


class ScoreDrift:
    """The population stability index of the best score, window by window.

    PSI = sum over bins of (p - q) ln(p / q): p the shares of this window, q those of the model's
    first window, by whose deciles the bins are cut. Below 0.1 nothing has changed, above 0.25
    much has (Siddiqi, Credit Risk Scorecards, 2006, chapter 8).
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._scores: list[float] = []
        self._edges: np.ndarray | None = None
        self._expected = np.zeros(BINS)

    def add(self, score: float) -> float | None:
        """Count one answer's best score; the index, if that fills a window after the first."""
        self._scores.append(score)
        if len(self._scores) < self._window:
            return None
        scores, self._scores = self._scores, []
        if self._edges is None:
            self._edges = np.quantile(scores, np.linspace(0, 1, BINS + 1)[1:-1])
            self._expected = self._shares(scores)
            return None
        found = self._shares(scores)
        return float(((found - self._expected) * np.log(found / self._expected)).sum())

    def _shares(self, scores: Sequence[float]) -> np.ndarray:
        """The share of each bin; half an answer more in each, so that none is empty."""
        assert self._edges is not None
        places = np.searchsorted(self._edges, scores, side="right")
        counts = np.bincount(places, minlength=BINS) + 0.5
        return counts / counts.sum()

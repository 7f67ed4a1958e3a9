"""Matrix factorisation by `implicit`: ALS and BPR.

A held-out history is no training row, so its user vector is folded in.

Shapes: B histories, U users, N items, D factors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from threadpoolctl import threadpool_limits

from recsys.eval.baselines.histories import history_counts
from recsys.eval.baselines.sparse import Sparse, row_sums
from recsys.schema import History

NUM_FACTORS = 64
CONFIDENCE, REGULARIZATION = 10.0, 30.0
"""alpha and lambda of Hu et al. 2008. On made data (3,000 users and 1,000 items of 30 tastes; 1,000
users and 2,000 items of 10) the library's 1 and 0.01 gave recall@10 of 0.14 in the first, these
0.19, and in both more than a lambda of 10 or 100."""


class AlsFactors:
    """Alternating least squares; a history's vector is the least-squares one for its items.

    Hu, Koren & Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
    """

    def __init__(
        self,
        counts: Sparse,
        num_factors: int = NUM_FACTORS,
        confidence: float = CONFIDENCE,
        regularization: float = REGULARIZATION,
        iterations: int = 15,
        seed: int = 0,
    ) -> None:
        # `implicit` has threads of its own, and asks for no others inside BLAS.
        with threadpool_limits(1, "blas"):
            self._model = AlternatingLeastSquares(
                num_factors,
                alpha=confidence,
                regularization=regularization,
                iterations=iterations,
                random_state=seed,
            )
            self._model.fit(counts, show_progress=False)

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) predicted preferences."""
        items = self._model.item_factors
        rows = history_counts(histories, len(items))
        with threadpool_limits(1, "blas"):
            return self._model.recalculate_user(np.arange(len(histories)), rows) @ items.T


class BprFactors:
    """Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618).

    A history's vector is made from the mean of its items' factors by the linear map that fits the
    trained users' vectors best (ridge regression): the two need not point alike.
    """

    def __init__(
        self,
        counts: Sparse,
        num_factors: int = NUM_FACTORS,
        iterations: int = 100,
        seed: int = 0,
    ) -> None:
        # One thread: several write into the same factors in an order that no seed decides.
        model = BayesianPersonalizedRanking(
            num_factors, iterations=iterations, num_threads=1, random_state=seed
        )
        model.fit(counts, show_progress=False)
        # The last column is the items' bias, and 1 for users.
        self._items, bias = model.item_factors[:, :-1], model.item_factors[:, -1]
        untrained = np.asarray(counts.sum(axis=0)).ravel() == 0
        self._bias = np.where(untrained, bias.min(), bias)
        self._fold_in = _ridge(self._means(counts), model.user_factors[:, :-1])

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) scores; an item without training events has the lowest bias."""
        means = self._means(history_counts(histories, len(self._items)))
        return means @ self._fold_in @ self._items.T + self._bias

    def _means(self, counts: Sparse) -> np.ndarray:
        """(B, D) the mean of the items' factors, each as often as it was taken."""
        return (counts @ self._items) / row_sums(counts)[:, None].astype(np.float32)


def _ridge(given: np.ndarray, wanted: np.ndarray, weight: float = 1e-3) -> np.ndarray:
    """(D, D) the map from `given` to `wanted` of least squares, kept small by `weight`."""
    squares = given.T @ given
    size = len(squares)
    floor = weight * max(float(np.trace(squares)) / size, 1e-12)
    return np.linalg.solve(squares + floor * np.eye(size), given.T @ wanted).astype(np.float32)

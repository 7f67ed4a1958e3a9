"""The category and brand nearest to a query in the space of the language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Encoder = Callable[[list[str]], np.ndarray]
"""B texts to (B, D) vectors in the space of the item vectors."""

MIN_ITEMS = 3
"""A value of fewer items has no prototype."""
_SCALES = np.geomspace(2.0, 200.0, 24)
_FITTED_ON = 2_000


class Prototypes:
    """The mean vector of the items of each value of one column."""

    def __init__(self, column: str, vectors_ND: np.ndarray, values: Sequence[str | None]) -> None:
        """`values`: of each of the N items, None where it has none.

        The scale that turns cosines into probabilities is the one at which items are told their
        own value best, in mean log probability.
        """
        vectors_ND = _unit(np.asarray(vectors_ND, dtype=np.float32))
        names, codes = np.unique([value or "" for value in values], return_inverse=True)
        counts = np.bincount(codes, minlength=len(names))
        kept = np.flatnonzero((counts >= MIN_ITEMS) & (names != ""))
        self.column = column
        self.values = [str(name) for name in names[kept]]
        means = [vectors_ND[codes == code].mean(axis=0) for code in kept]
        self._means_VD = _unit(np.array(means).reshape(len(kept), vectors_ND.shape[1]))
        places = np.full(len(names), -1)
        places[kept] = np.arange(len(kept))
        self._scale = self._fit_scale(vectors_ND, places[codes])

    def nearest(self, vector_D: np.ndarray) -> tuple[str, float] | None:
        """The value and its probability; None where the column has no prototype."""
        if not self.values:
            return None
        probabilities = _softmax(self._scale * (_unit(vector_D[None]) @ self._means_VD.T))[0]
        best = int(probabilities.argmax())
        return self.values[best], float(probabilities[best])

    def _fit_scale(self, vectors_ND: np.ndarray, places_N: np.ndarray) -> float:
        known = np.flatnonzero(places_N >= 0)
        known = known[:: max(1, len(known) // _FITTED_ON)]
        if not len(known):
            return 1.0
        cosines = vectors_ND[known] @ self._means_VD.T
        right = [
            np.log(_softmax(scale * cosines)[np.arange(len(known)), places_N[known]] + 1e-9).mean()
            for scale in _SCALES
        ]
        return float(_SCALES[int(np.argmax(right))])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)

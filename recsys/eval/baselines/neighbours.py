"""Neighbourhood models on the user x item matrix of training.

Shapes: B histories, U users, N items. A count c weighs log2(1 + c) (`damped`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from implicit.nearest_neighbours import all_pairs_knn

from recsys.eval.baselines.histories import history_counts
from recsys.eval.baselines.scoring import slices
from recsys.eval.baselines.sparse import Sparse, damped, keep_largest, row_sums, rows_of
from recsys.schema import History

NUM_NEIGHBOURS = 100


class ItemNeighbours:
    """Item-kNN: an item's score is the sum of its cosine similarities to the history's items.

    Each item of the history speaks for its `num_neighbours` nearest items, not for itself
    (Deshpande & Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 22(1), 2004).
    """

    def __init__(self, counts: Sparse, num_neighbours: int = NUM_NEIGHBOURS) -> None:
        columns = damped(counts).astype(np.float64)
        columns.data /= _column_lengths(columns)[columns.indices]
        # One more, since an item is its own nearest neighbour.
        found = all_pairs_knn(columns, num_neighbours + 1, show_progress=False)
        similar = found.tocsr().astype(np.float32)
        similar.setdiag(0)
        similar.eliminate_zeros()
        self._similar = keep_largest(similar, num_neighbours)

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) sums of similarities."""
        rows = history_counts(histories, self._similar.shape[0])
        return (damped(rows) @ self._similar).toarray()


class UserNeighbours:
    """User-kNN: an item's score is what the most similar users took, by their similarity.

    `cosine` compares users' rows; `pearson` takes each user's mean over all items away first
    (Resnick et al., "GroupLens", CSCW 1994, there over the items both rated). Neighbours have a
    positive similarity. A user who was trained on is a neighbour of her own history.
    """

    def __init__(
        self,
        counts: Sparse,
        num_neighbours: int = NUM_NEIGHBOURS,
        similarity: Literal["cosine", "pearson"] = "cosine",
    ) -> None:
        self._taken = damped(counts)
        self._by_item = self._taken.T.tocsr()
        self._num_neighbours = num_neighbours
        self._centred = similarity == "pearson"
        self._means, self._norms = self._moments(self._taken)

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) sums of similarities."""
        parts = slices(range(len(histories)), max(self._taken.shape))
        return np.concatenate([self._scores([histories[row] for row in part]) for part in parts])

    def _scores(self, histories: Sequence[History]) -> np.ndarray:
        rows = damped(history_counts(histories, self._taken.shape[1]))
        nearest = keep_largest(self._similarities(rows), self._num_neighbours)
        return (nearest @ self._taken).toarray().astype(np.float32)

    def _similarities(self, rows: Sparse) -> Sparse:
        """(B, U) similarities to the users who share an item; the others' are not positive."""
        means, norms = self._moments(rows)
        products = (rows @ self._by_item).astype(np.float64)
        here, users = rows_of(products), products.indices
        common = products.data - rows.shape[1] * means[here] * self._means[users]
        scale = norms[here] * self._norms[users]
        products.data = np.divide(common, scale, out=np.zeros_like(common), where=scale > 0)
        return products

    def _moments(self, rows: Sparse) -> tuple[np.ndarray, np.ndarray]:
        """Each row's mean, 0 for cosine, and its length with the mean taken away."""
        num_items = rows.shape[1]
        squares = row_sums(rows.multiply(rows).tocsr())
        means = row_sums(rows) / num_items if self._centred else np.zeros(len(squares))
        left = squares - num_items * means**2
        # A row that is the same everywhere has no direction; what is left of it is rounding.
        return means, np.sqrt(np.where(left > 1e-6 * squares, left, 0))


def _column_lengths(matrix: Sparse) -> np.ndarray:
    return np.sqrt(np.bincount(matrix.indices, matrix.data**2, matrix.shape[1]))

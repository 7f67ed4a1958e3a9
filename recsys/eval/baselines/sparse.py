"""Sparse matrices, row by row (CSR), as `implicit` and scikit-learn take them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import coo_matrix

Sparse: TypeAlias = Any
"""A scipy.sparse.csr_matrix. scipy has no annotations, and what type checkers infer from its source
is wrong for most operators."""


def from_cells(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> Sparse:
    """The matrix of these values; those of one cell are added up."""
    return coo_matrix((values, (rows, columns)), shape=shape).tocsr()


def rows_of(matrix: Sparse) -> np.ndarray:
    """The row of each stored value."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def row_sums(matrix: Sparse) -> np.ndarray:
    """(rows,) float64 sums."""
    return np.bincount(rows_of(matrix), matrix.data, matrix.shape[0])


def damped(counts: Sparse) -> Sparse:
    """log2(1 + count): 1 for an item taken once, and little more for one taken often."""
    found = counts.copy()
    found.data = np.log2(1 + found.data)
    return found


def keep_largest(matrix: Sparse, count: int) -> Sparse:
    """The `count` largest positive values of each row; of equal ones those of lower columns."""
    rows = rows_of(matrix)
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(order)) - matrix.indptr[rows]
    kept = order[(place < count) & (matrix.data[order] > 0)]
    return from_cells(matrix.data[kept], rows[kept], matrix.indices[kept], matrix.shape)

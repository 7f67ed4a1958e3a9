"""Histories as rows of a sparse user x item matrix.

Shapes: B histories, N items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.eval.baselines.sparse import Sparse, from_cells
from recsys.schema import History

HALF_LIFE = 5.0
"""Events after which an event of a history weighs half."""


def history_counts(histories: Sequence[History], num_items: int) -> Sparse:
    """(B, N) float32: how often each item is in each history."""
    return _matrix(histories, [np.ones(len(history)) for history in histories], num_items)


def history_recency(
    histories: Sequence[History], num_items: int, half_life: float = HALF_LIFE
) -> Sparse:
    """(B, N) float32 weights of each history's items that sum to 1, newer events weigh more."""
    weights = [0.5 ** (np.arange(len(h))[::-1] / half_life) for h in histories]
    return _matrix(histories, [w / w.sum() for w in weights], num_items)


def _matrix(histories: Sequence[History], values: list[np.ndarray], num_items: int) -> Sparse:
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = np.concatenate([history.item_indexes for history in histories])
    shape = (len(histories), num_items)
    return from_cells(np.concatenate(values).astype(np.float32), rows, items, shape)

"""Small catalogues and training rows made in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from recsys.engine.catalogue import Catalogue
from recsys.eval.baselines.sparse import Sparse, from_cells
from recsys.schema import UNKNOWN_TIME, History

GROUP = 10
"""Items of each of the two groups of users in `planted_rows`."""


def make_catalogue(
    train_counts: Sequence[int], removed: Sequence[int] = (), categories: Sequence[str] = ()
) -> Catalogue:
    """Items named by their indexes."""
    size = len(train_counts)
    columns = {
        "item_id": [str(item) for item in range(size)],
        "title": [None] * size,
        "train_count": list(train_counts),
        "removed": [item in removed for item in range(size)],
    }
    return Catalogue(pa.table(columns | ({"category": list(categories)} if categories else {})))


def make_counts(rows: Sequence[Sequence[int]]) -> Sparse:
    """Event counts written out as a matrix."""
    dense = np.array(rows, dtype=np.float32)
    users, items = dense.nonzero()
    return from_cells(dense[users, items], users, items, (len(rows), dense.shape[1]))


def make_rows(windows: Sequence[tuple[str, Sequence[int], Sequence[int] | None]]) -> pa.Table:
    """Training rows of (user, items, timestamps), one event name."""
    times = [[UNKNOWN_TIME] * len(items) if t is None else list(t) for _, items, t in windows]
    return pa.table(
        {
            "user_id": pa.array([user for user, _, _ in windows], pa.large_string()),
            "item_indexes": pa.array([list(i) for _, i, _ in windows], pa.large_list(pa.int32())),
            "timestamps": pa.array(times, pa.large_list(pa.int64())),
            "events": pa.array([[0] * len(t) for t in times], pa.large_list(pa.int8())),
        }
    )


def planted_rows(num_users: int = 60, seed: int = 0) -> pa.Table:
    """Even users take seven of the items 0-9, odd ones seven of the items 10-19."""
    random = np.random.default_rng(seed)
    return make_rows(
        [
            (f"u{user}", random.permutation(GROUP)[:7] + GROUP * (user % 2), range(7))
            for user in range(num_users)
        ]
    )


def histories(*items: Sequence[int]) -> list[History]:
    """Histories of these items."""
    return [History.of_items(list(some)) for some in items]

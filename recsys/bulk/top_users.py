"""The best users of each item, kept while users come by in any order.

Shapes: U users, K items.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys import schema

SPARE_ROWS = 65_536
"""Rows that may wait beside the best ones: sorting them together costs little a row."""
COLUMNS = {"place": pl.Int64, schema.USER_ID: pl.String, "score": pl.Float32}
"""What `TopUsers.add` makes rows of."""


def best_rows(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """The `count` rows of each `place` with the highest scores; equal scores by user id.

    Best of bests are the best of all, whatever the parts: so parts may be taken in any order.
    """
    ordered = rows.sort(["place", "score", schema.USER_ID], descending=[False, True, False])
    return ordered.group_by("place", maintain_order=True).head(count)


class TopUsers:
    """The `count` best users of each item so far; `place` is the item's place in the question."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: list[pl.DataFrame] = []
        self._num_waiting = 0
        self._best = pl.DataFrame(schema=COLUMNS)

    def add(self, user_ids: pl.Series, scores_UK: np.ndarray, counts_UK: np.ndarray) -> None:
        """Look at users; only pairs where `counts_UK` holds."""
        users, places = np.nonzero(counts_UK)
        found = [places, user_ids.gather(users), scores_UK[users, places]]
        self.merge(pl.DataFrame(dict(zip(COLUMNS, found, strict=True)), schema_overrides=COLUMNS))

    def merge(self, rows: pl.DataFrame) -> None:
        """Look at rows with `place`, `user_id`, `score` and maybe more."""
        self._waiting.append(rows)
        self._num_waiting += len(rows)
        if self._num_waiting > SPARE_ROWS + len(self._best):
            self._settle()

    def rows(self) -> pl.DataFrame:
        """The best users, by place and from the best on."""
        self._settle()
        return self._best

    def _settle(self) -> None:
        parts = [part for part in (self._best, *self._waiting) if len(part)]
        if parts:
            self._best = best_rows(pl.concat(parts), self._count)
        self._waiting, self._num_waiting = [], 0

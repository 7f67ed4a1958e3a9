"""The best users of an item: the same whatever the parts and their order."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.bulk import top_users
from recsys.bulk.top_users import TopUsers

scores = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "用户", "d", "e"]), st.integers(0, 2)),
    unique_by=lambda row: row[:2],
    max_size=15,
)


def frame(rows: list[tuple[int, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=top_users.COLUMNS, orient="row")


def triples(top: TopUsers) -> list[tuple[int, str, float]]:
    return top.rows().rows()


@settings(deadline=None, max_examples=60)
@given(rows=scores, count=st.integers(1, 4), seed=st.integers(0, 99), size=st.integers(1, 4))
def test_best_of_bests_are_the_best_of_all(rows, count, seed, size):
    expected = []
    for place in range(3):
        of_item = [row for row in rows if row[0] == place]
        of_item.sort(key=lambda row: (-row[2], row[1]))
        expected += of_item[:count]
    random.Random(seed).shuffle(rows)
    top = TopUsers(count)
    for start in range(0, len(rows), size):
        part = TopUsers(count)
        part.merge(frame(rows[start : start + size]))
        top.merge(part.rows())
    assert triples(top) == expected


def test_only_pairs_that_count_are_looked_at():
    top = TopUsers(2)
    values = np.array([[1, 4], [3, 5], [2, 6]], dtype=np.float32)
    counts = np.array([[True, False], [False, True], [True, True]])
    top.add(pl.Series(["u", "v", "w"]), values, counts)
    assert triples(top) == [(0, "w", 2.0), (0, "u", 1.0), (1, "w", 6.0), (1, "v", 5.0)]


def test_what_waits_stays_small(monkeypatch):
    monkeypatch.setattr(top_users, "SPARE_ROWS", 10)
    top = TopUsers(3)
    for number in range(50):
        top.add(
            pl.Series([f"u{number}"]), np.full((1, 1), number, np.float32), np.ones((1, 1), bool)
        )
        assert top._num_waiting <= 14
    assert triples(top) == [(0, "u49", 49.0), (0, "u48", 48.0), (0, "u47", 47.0)]

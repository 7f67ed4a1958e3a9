"""Recommendations and audiences as rows: nothing lost, each user's ranks from one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from recsys.bulk.audience import audience_table, find_items, takers
from recsys.bulk.recommend import SCHEMA, rank_users, recommendation_rows
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import MODEL, POPULAR, Ranked
from recsys.schema import History

ITEMS = pa.array(["i0", "茶", "i2", "i3"], pa.large_string())


class Counting:
    """A ranker that answers the length of the history, and remembers how it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def rank(self, histories, top_k, excluded) -> list[Ranked]:
        assert len(histories) == len(top_k) == len(excluded)
        self.batches.append(len(histories))
        return [Ranked([len(history)], [1.0], MODEL) for history in histories]


def test_rows_are_written_out_in_the_order_of_users_and_ranks():
    ranked = [
        Ranked([1, 3], [0.5, 0.25], MODEL),
        Ranked([], [], POPULAR),
        Ranked([0], [2], POPULAR),
    ]
    rows = recommendation_rows(pa.array(["a", "b", "用户"], pa.large_string()), ranked, ITEMS)
    assert rows.schema == SCHEMA
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("a", "茶", 1, 0.5, "model"),
        ("a", "i3", 2, 0.25, "model"),
        ("用户", "i0", 1, 2.0, "popular"),
    ]


def test_no_users_give_no_rows_of_the_same_columns():
    rows = recommendation_rows(pa.array([], pa.large_string()), [], ITEMS)
    assert (len(rows), rows.schema) == (0, SCHEMA)


def test_every_history_is_ranked_once_in_batches():
    ranker = Counting()
    histories = [History.of_items([0] * length) for length in (3, 1, 2, 0, 3)]
    ranked = rank_users(ranker, histories, 5, batch_size=2)
    assert [one.item_indexes for one in ranked] == [[3], [1], [2], [0], [3]]
    assert ranker.batches == [2, 2, 1]


def test_who_took_an_item_is_told_by_event():
    of_events = [([1, 2], [0, 1]), ([2], [0]), ([], [])]
    histories = [
        History(np.array(items, np.int32), np.full(len(items), 5), np.array(kinds, np.int8))
        for items, kinds in of_events
    ]
    assert takers(histories, [2, 1], None).tolist() == [[True, True], [True, False], [False, False]]
    assert takers(histories, [2, 1], [1]).tolist() == [
        [True, False],
        [False, False],
        [False, False],
    ]


def test_an_audience_has_a_rank_in_each_item():
    best = pl.DataFrame(
        [(0, "u", 0.9, 0.5), (0, "v", 0.8, None), (1, "u", 0.1, None)],
        schema={
            "place": pl.Int64,
            "user_id": pl.String,
            "score": pl.Float32,
            "probability": pl.Float32,
        },
        orient="row",
    )
    table = audience_table(best, ["茶", "i2"])
    assert table.column_names == ["item_id", "user_id", "rank", "score", "probability"]
    assert table["item_id"].to_pylist() == ["茶", "茶", "i2"]
    assert table["rank"].to_pylist() == [1, 2, 1]
    assert table["probability"].to_pylist() == [0.5, None, None]


def test_items_that_cannot_be_asked_for_are_named():
    columns = {"title": ["a"] * 4, "train_count": [1] * 4, "removed": [False, False, False, True]}
    catalogue = Catalogue(pa.table({"item_id": ITEMS} | columns))
    assert find_items(catalogue, ["i2", "茶"], "index") == [2, 1]
    with pytest.raises(ValueError, match="no such items: i9, i3"):
        find_items(catalogue, ["i9", "茶", "i3"], "index")
    with pytest.raises(ValueError, match="no id was given"):
        find_items(catalogue, [], "index")

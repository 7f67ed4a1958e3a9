"""Rules from items of similar text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.index.alike import UNSEEN_FACTOR, alike_pairs, readable, text_vectors

VECTORS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
"""Cosines: 0 and 1 .6, 1 and 2 .8, 1 and 3 -.6; the last item has no text."""
COUNTS = np.array([32, 1, 0, 5, 9])


def pairs(asked: list[int], kept: int = 4) -> dict[tuple[int, int], float]:
    rows = alike_pairs(VECTORS, COUNTS, np.array(asked), kept).to_pylist()
    return {(row["from"], row["to"]): row["sum"] for row in rows}


def test_a_likeness_counts_by_the_training_events_of_the_item_it_leads_to():
    found = pairs([0, 1, 2])
    # 32 ** .2 is 2, and nothing else than a text leads to the item without events.
    assert found == pytest.approx(
        {(0, 1): 0.6, (1, 0): 0.6 * 2, (1, 2): 0.8 * UNSEEN_FACTOR, (2, 1): 0.8}
    )


def test_no_likeness_that_is_not_positive_makes_a_rule():
    assert pairs([3, 4]) == {}
    assert 3 not in {to for _, to in pairs([0, 1, 2])}


def test_the_nearest_are_kept():
    assert list(pairs([1], kept=1)) == [(1, 2)]


def test_items_without_text_are_like_nothing():
    random = np.random.default_rng(0)
    text = torch.from_numpy(random.normal(size=(40, 4)).astype(np.float32))
    told = np.arange(40) < 37
    text[~torch.from_numpy(told)] = 5.0
    vectors = text_vectors(text, told)
    assert vectors[:37].norm(dim=1).numpy() == pytest.approx(np.ones(37), abs=1e-5)
    assert not vectors[37:].any()
    found = alike_pairs(vectors, np.ones(40, np.int64), np.arange(40), kept=39)
    assert not {37, 38, 39} & {*found["from"].to_pylist(), *found["to"].to_pylist()}


def test_an_item_is_readable_by_any_of_the_columns_that_there_are():
    items = pa.table(
        {"title": ["a", None, " ", ""], "brand": [None, "b", None, ""], "x": ["x"] * 4}
    )
    assert readable(items, ["title", "brand", "description"]).tolist() == [True, True, False, False]

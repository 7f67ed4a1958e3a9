"""Facets: every item of the result is counted once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.engine.query.facets import NUM_VALUES, FacetCount, Facets
from tests.engine.query.shop import shop_items

ITEMS = pa.table(
    {
        "item_id": list("abcdef"),
        "title": ["x"] * 6,
        "brand": pa.array(["A", "B", "A", "", None, "C"], pa.string()),
        "price": [1.0, 9.0, 12.0, None, 30.0, float("nan")],
        "sale": [True, False, True, None, True, True],
    }
)


def test_values_are_counted_most_frequent_first():
    [brand, sale] = Facets(ITEMS).count(np.arange(6), ["brand", "sale"])
    assert [(c.value, c.count) for c in brand.counts] == [("A", 2), ("B", 1), ("C", 1)]
    assert (brand.missing, brand.others) == (2, 0)
    assert [(c.value, c.count) for c in sale.counts] == [("true", 4), ("false", 1)]


def test_numbers_are_counted_in_round_ranges_without_gaps():
    [price] = Facets(ITEMS).count(np.arange(6), ["price"])
    assert price.missing == 2
    assert sum(c.count for c in price.counts) == 4
    assert price.counts[0] == FacetCount(1, maximum=5.0)
    for lower, upper in zip(price.counts, price.counts[1:], strict=False):
        assert lower.maximum == upper.minimum


def test_a_row_named_twice_counts_once_and_no_rows_count_nothing():
    facets = Facets(ITEMS)
    assert facets.count(np.array([0, 0]), ["brand"])[0].counts == (FacetCount(1, "A"),)
    assert all(f.counts == () and f.missing == 0 for f in facets.count(np.array([], np.int64)))


def test_an_unknown_column_is_refused_by_name():
    with pytest.raises(ValueError, match="no facet.*weight.*brand"):
        Facets(ITEMS).count(np.arange(2), ["weight"])


def test_ids_and_titles_are_no_facets():
    assert set(Facets(ITEMS).columns) == {"brand", "price", "sale"}


def test_values_beyond_the_listed_are_others():
    names = [f"brand {n:02d}" for n in range(NUM_VALUES + 5)]
    [facet] = Facets(pa.table({"item_id": names, "brand": names})).count(np.arange(len(names)))
    assert (len(facet.counts), facet.others) == (NUM_VALUES, 5)


@given(st.lists(st.integers(0, 95)))
def test_counts_add_up(rows):
    for facet in Facets(shop_items()).count(np.array(rows, dtype=np.int64)):
        assert sum(c.count for c in facet.counts) + facet.missing + facet.others == len(set(rows))

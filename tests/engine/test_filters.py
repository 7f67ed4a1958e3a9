"""Filters against a plain loop over the items, and what they refuse."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.engine.catalogue import Catalogue
from recsys.engine.filters import NUM_MASKS, Filter, ItemFilters

ITEMS = {
    "item_id": list("abcdef"),
    "title": ["Saw", "Drill", None, "Hat", "Coat", "Tea"],
    "category": ["Tools", "Tools", "衣服", "衣服", None, ""],
    "price": [10.0, 20.0, None, 5.0, float("nan"), float("inf")],
    "stock": [3, 0, None, 7, 1, 2**40],
    "is_new": [True, False, None, True, False, True],
    "train_count": [5, 4, 3, 2, 1, 0],
    "removed": [False] * 6,
}
VALUES = {
    "category": ["Tools", "Tools", "衣服", "衣服", None, None],
    "price": [10.0, 20.0, None, 5.0, None, None],
    "stock": ITEMS["stock"],
    "is_new": ITEMS["is_new"],
}


def filters(**columns: list) -> ItemFilters:
    catalogue = Catalogue(pa.table(ITEMS | columns))
    return ItemFilters(catalogue.columns, len(catalogue))


def passing(*conditions: Filter) -> str:
    mask = filters().allowed(conditions)
    assert mask is not None
    return "".join(i for i, passes in zip(ITEMS["item_id"], mask.tolist(), strict=True) if passes)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Filter("category", ("Tools",)), "ab"),
        (Filter("category", ("衣服", "Tools", "no such")), "abcd"),
        (Filter("category", ("no such",)), ""),
        (Filter("price", (5.0, 20)), "bd"),
        (Filter("price", minimum=5.0, maximum=10.0), "ad"),
        (Filter("price", minimum=10.5), "b"),
        (Filter("stock", (2.0**40,)), "f"),
        (Filter("stock", maximum=1), "be"),
        (Filter("stock", (0, 3, 7), minimum=1), "ad"),
        (Filter("is_new", (True,)), "adf"),
        (Filter("is_new", (True, False)), "abdef"),
    ],
)
def test_items_without_a_value_match_nothing_and_so_pass_when_it_is_negated(condition, expected):
    assert passing(condition) == expected
    negated = Filter(
        condition.column, condition.values, condition.minimum, condition.maximum, negated=True
    )
    assert passing(negated) == "".join(i for i in "abcdef" if i not in expected)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(
        st.one_of(
            st.builds(
                Filter,
                st.just("category"),
                st.lists(st.sampled_from(["Tools", "衣服", ""]), min_size=1).map(tuple),
                negated=st.booleans(),
            ),
            st.builds(
                Filter,
                st.sampled_from(["price", "stock"]),
                st.lists(st.sampled_from([0, 3, 5.0, 10.0]), max_size=3).map(tuple),
                st.sampled_from([-1.0, 0.0, 3.0]),
                st.sampled_from([None, 7.0, 10.0]),
                st.booleans(),
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_all_filters_hold_for_what_passes(asked):
    def matches(one: Filter, value: str | float | None) -> bool:
        if value is None:
            return one.negated
        inside = not one.values or value in one.values
        inside = inside and (one.minimum is None or value >= one.minimum)
        return (inside and (one.maximum is None or value <= one.maximum)) != one.negated

    rows = range(len(ITEMS["item_id"]))
    wanted = [r for r in rows if all(matches(one, VALUES[one.column][r]) for one in asked)]
    assert passing(*asked) == "".join(ITEMS["item_id"][row] for row in wanted)


def test_without_filters_there_is_no_mask():
    assert filters().allowed([]) is None


def test_the_same_filters_in_another_order_share_a_mask_and_old_ones_give_way():
    asked = filters()
    one, two = Filter("price", minimum=1.0), Filter("category", ("Tools",))
    mask = asked.allowed([one, two])
    assert asked.allowed([two, one, two]) is mask
    for number in range(NUM_MASKS):
        asked.allowed([Filter("price", minimum=100.0 + number)])
    again = asked.allowed([one, two])
    assert again is not mask
    assert again is not None
    assert again.equal(mask)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Filter("colour", ("red",)), "no column 'colour'.*category, is_new, price, stock"),
        (Filter("title", ("Saw",)), "no column 'title'"),
        (Filter("category", minimum=1.0), "'category' has no range.*price, stock"),
        (Filter("is_new", maximum=1.0), "'is_new' has no range"),
        (Filter("category", (5.0,)), "'category' holds texts and 5.0 is none"),
        (Filter("price", ("5",)), "'price' holds numbers and '5' is none"),
        (Filter("price", (True,)), "'price' holds numbers and True is none"),
        (Filter("price", (float("nan"),)), "'price' holds numbers and nan is none"),
        (Filter("is_new", (1.0,)), "'is_new' holds booleans and 1.0 is none"),
        (Filter("price", minimum=2.0, maximum=1.0), "'price' from 2.0 to 1.0 is no range"),
        (Filter("price", minimum=float("nan")), "'price' from nan to inf is no range"),
        (Filter("category"), "'category' says nothing"),
    ],
)
def test_what_cannot_be_filtered_is_refused_with_what_can(condition, message):
    for ask in (filters().check, filters().allowed):
        with pytest.raises(ValueError, match=message):
            ask([Filter("price", minimum=0.0), condition])


def test_a_number_that_equals_a_boolean_is_refused_also_when_its_mask_is_known():
    asked = filters()
    asked.allowed([Filter("stock", (1.0,))])
    with pytest.raises(ValueError, match="True is none"):
        asked.allowed([Filter("stock", (True,))])

"""What is kept of an item, and items that come and go."""

from __future__ import annotations

import pyarrow as pa
import pytest

from recsys.engine.catalogue import Catalogue
from tests.engine.test_filters import ITEMS
from tests.engine.test_recommender import make_recommender


def catalogue() -> Catalogue:
    return Catalogue(pa.table(ITEMS))


def test_an_item_has_its_values_in_their_own_types_and_no_others():
    found = [catalogue().values_of(n) for n in range(6)]
    assert found[0] == {"category": "Tools", "price": 10.0, "stock": 3, "is_new": True}
    assert isinstance(found[0]["stock"], int)
    assert found[2] == {"category": "衣服"}
    assert found[4] == {"stock": 1, "is_new": False}
    assert found[5] == {"stock": 2**40, "is_new": True}


def test_the_recommender_tells_an_item_or_nothing():
    recommender = make_recommender()
    assert recommender.item("sku-3") == {"item_id": "sku-3", "title": "Saw", "attributes": {}}
    assert recommender.item("gone") is None


def test_present_items_come_once_and_removed_ones_are_unknown():
    items = catalogue().without_items([1])
    assert items.present(["c", "x", "b", "a", "c"]) == ([2, 0], ["x", "b"])
    assert items.find(["b"])[0] == [1]


def test_new_items_come_last_and_known_ones_keep_index_and_events():
    rows = [{"title": "锤子", "category": "Tools"}, {"title": "Cap", "price": 3.5, "stock": 2}]
    items = catalogue().without_items([3]).with_items(["new", "d"], rows)
    assert items.vocabulary.item_ids.tolist() == [*"abcdef", "new"]
    assert items.titles == ["Saw", "Drill", None, "Cap", "Coat", "Tea", "锤子"]
    assert items.values_of(3) == {"price": 3.5, "stock": 2}
    assert items.values_of(6) == {"category": "Tools"}
    assert items.train_counts.tolist() == [5, 4, 3, 2, 1, 0, 0]
    assert not items.removed.any()
    assert catalogue().titles[3] == "Hat"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"colour": "red"}, "no column colour: name title, category"),
        ({"train_count": 9}, "no column train_count"),
        ({"price": "cheap"}, "another type"),
        ({"title": 5}, "another type"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        catalogue().with_items(["new"], [row])

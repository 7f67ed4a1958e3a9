"""Completions: what begins so, what is popular, and what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.engine.query.suggest import Suggester, Suggestion
from tests.engine.query.shop import shop_items


@pytest.fixture(scope="module")
def shop() -> Suggester:
    return Suggester.of_catalogue(shop_items(), {"backpack for school": 7.0})


def texts(suggester: Suggester, text: str, top_k: int = 8) -> list[str]:
    return [found.text for found in suggester.suggest(text, top_k)]


def test_everything_answered_holds_what_was_typed(shop):
    found = texts(shop, "wal", 50)
    assert len(found) == 12
    assert all("wallet" in text for text in found)


def test_the_most_popular_comes_first_and_a_beginning_before_a_middle():
    entries = [
        Suggestion("tent", "title", 3.0),
        Suggestion("tent peg", "title", 9.0),
        Suggestion("blue tent", "title", 10.0),
    ]
    assert texts(Suggester(entries), "te") == ["tent peg", "tent", "blue tent"]


def test_categories_brands_and_known_queries_are_completed(shop):
    assert shop.suggest("kit")[0] == Suggestion("Kitchen", "category", 23_148.0)
    assert shop.suggest("alv")[0].kind == "brand"
    assert shop.suggest("backpack for")[0] == Suggestion("backpack for school", "query", 7.0)


def test_words_between_may_be_left_out(shop):
    assert texts(shop, "alvenor back") == [
        f"Alvenor {colour} backpack" for colour in ("red", "blue", "black")
    ]


def test_chinese_is_found_at_any_character(shop):
    assert all("背包" in text for text in texts(shop, "背"))
    assert texts(shop, "红色背", 1) == ["Alvenor 红色背包"]


def test_a_misspelled_beginning_is_completed(shop):
    assert texts(shop, "bakcpa") == texts(shop, "backpa")
    assert texts(shop, "brimwlet te", 1) == ["Brimwelt red teapot"]


def test_a_removed_item_is_not_suggested(shop):
    assert "Red Oak 黑色钱包" not in texts(shop, "red oak", 100)
    assert "Red Oak 蓝色钱包" in texts(shop, "red oak", 100)


def test_equal_texts_are_one_entry_with_the_larger_weight():
    suggester = Suggester([Suggestion("Tent", "title", 1.0), Suggestion("tent", "query", 5.0)])
    assert suggester.suggest("tent") == [Suggestion("tent", "query", 5.0)]


@pytest.mark.parametrize("text", ["", "  ", "%_", "\x00", "😀", ".*", "(?:a+)+$"])
def test_text_that_names_nothing_completes_to_nothing(shop, text):
    assert all(text.strip("\x00") and "a" in found for found in texts(shop, text))


def test_a_suggester_of_nothing_suggests_nothing():
    assert Suggester([]).suggest("tent") == []


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=80), st.integers(0, 5))
def test_any_text_is_answered_within_the_count(shop, text, top_k):
    found = shop.suggest(text, top_k)
    assert len(found) == len({f.text for f in found}) <= top_k

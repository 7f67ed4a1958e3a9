"""Queries made of a catalogue, and that they say what they are said to say."""

from __future__ import annotations

import pytest

from recsys.engine.query.lexicon import Lexicon
from recsys.engine.query.synthetic_queries import synthetic_queries
from recsys.engine.query.understanding import MAX_QUERY_CHARS
from tests.engine.query.shop import shop_items


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(shop_items())


def test_the_seed_decides(lexicon):
    assert synthetic_queries(lexicon, 40, seed=1) == synthetic_queries(lexicon, 40, seed=1)
    assert synthetic_queries(lexicon, 40, seed=1) != synthetic_queries(lexicon, 40, seed=2)


def test_all_intents_and_both_languages_are_made(lexicon):
    made = synthetic_queries(lexicon, 200, seed=0)
    assert {q.intent for q in made} == {"navigational", "category", "attribute", "exploratory"}
    assert any(q.text.isascii() for q in made)
    assert any(not q.text.isascii() for q in made)
    assert all(0 < len(q.text) <= MAX_QUERY_CHARS for q in made)


def test_given_items_have_queries_of_their_own(lexicon):
    rows = [3, 90]
    made = synthetic_queries(lexicon, 40, seed=0, rows=rows)
    ids = lexicon.frame["item_id"].to_list()
    assert {q.row for q in made} == set(rows)
    assert {q.item_id for q in made if q.intent != "exploratory"} == {ids[3], ids[90]}
    for query in made:
        category = lexicon.frame["category"][query.row]
        assert {s.value for s in query.slots if s.kind == "category"} <= {category}


def test_what_a_query_was_given_is_told(lexicon):
    made = synthetic_queries(lexicon, 200, seed=0)
    limits = [(q, s) for q in made for s in q.slots if s.kind == "price"]
    assert limits
    assert all(f"{slot.maximum:.0f}" in query.text for query, slot in limits)

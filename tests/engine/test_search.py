"""Searches by words, by meaning, by both, and for a user; and what nobody should send."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recsys.config import ModelConfig
from recsys.data.tokenize import load_tokenizer
from recsys.engine.recommender import Event, Query
from recsys.engine.search import DenseSearch, SearchAnswer, Searcher, SearchQuery
from recsys.index.fusion import Fusion
from recsys.index.item_index import ExactIndex
from recsys.index.lexical import LexicalIndex, split_words
from recsys.index.text_vectors import QueryEncoder
from recsys.models.backbone import load_text_encoder
from tests.engine.test_recommender import IDS, POPULAR, TITLES, make_catalogue, make_recommender

HAT, NAIL, SAW, DRILL, HAMMER = 0, 1, 3, 5, 7
HISTORY = [Event(IDS[SAW]), Event(IDS[NAIL])]


@pytest.fixture(scope="module")
def encoder(tiny_backbone: str) -> QueryEncoder:
    """A language model that knows nothing, but gives equal texts equal vectors."""
    config = ModelConfig(backbone=tiny_backbone)
    return QueryEncoder(load_text_encoder(config), load_tokenizer(tiny_backbone))


@pytest.fixture(scope="module")
def searcher(encoder: QueryEncoder) -> Searcher:
    """Words and meaning of the titles, both counted the same."""
    catalogue = make_catalogue()
    ranking = catalogue.ranking
    lexical = LexicalIndex.build([split_words(title or "") for title in TITLES], ranking)
    vectors = encoder.encode([title or "" for title in TITLES])
    items = ExactIndex(vectors, ranking.order_N, ranking.removed_N)
    dense = DenseSearch(encoder, items)
    return Searcher(lexical, dense, Fusion(), catalogue, make_recommender())


@pytest.fixture(scope="module")
def by_words(searcher: Searcher) -> Searcher:
    """The same without meaning."""
    return searcher.with_fusion(Fusion(0.0))


def one(searcher: Searcher, query: SearchQuery) -> SearchAnswer:
    (answer,) = searcher.search([query])
    return answer


def ids(answer: SearchAnswer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_an_item_found_first_by_words_and_by_meaning_is_first_and_told_so(searcher):
    best = one(searcher, SearchQuery("hammer")).items[0]
    assert (best.item_id, best.title) == (IDS[HAMMER], "Hammer")
    assert (best.lexical_rank, best.dense_rank) == (1, 1)
    assert best.score == pytest.approx(1 / 61)


def test_scores_fall_and_no_item_comes_twice(searcher):
    answer = one(searcher, SearchQuery("hammer nail", top_k=100))
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert sorted(ids(answer)) == sorted(IDS)


def test_meaning_finds_what_no_word_does(searcher, by_words):
    assert one(by_words, SearchQuery("tool")).source == "popular"
    answer = one(searcher, SearchQuery("tool", top_k=3))
    assert answer.source == "search"
    assert [item.lexical_rank for item in answer.items] == [None] * 3
    assert [item.dense_rank for item in answer.items] == [1, 2, 3]


@pytest.mark.parametrize("text", ["", "  ", "😀😀", "\x00", "...", "\ud800", "<br>"])
def test_a_text_that_says_nothing_gets_popular_items_and_is_told_so(searcher, text):
    answer = one(searcher, SearchQuery(text, top_k=3))
    assert answer.source == "popular"
    assert ids(answer) == [IDS[item] for item in POPULAR[:3]]


@pytest.mark.parametrize(
    "text", ["hammer\x00", "HAMMER", "<b>hammer</b>", "ｈａｍｍｅｒ", "hammer\ud800"]
)
def test_what_cannot_be_seen_changes_nothing(searcher, text):
    assert ids(one(searcher, SearchQuery(text))) == ids(one(searcher, SearchQuery("hammer")))


@pytest.mark.parametrize("text", ["'; DROP TABLE items;--", "hammer " * 1_428, "锤" * 10_000])
def test_strange_texts_are_answered(searcher, text):
    assert len(one(searcher, SearchQuery(text, top_k=3)).items) == 3


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (SearchQuery("a" * 10_001), "10001 characters: send at most 10000"),
        (SearchQuery("hat", top_k=0), "top_k is 0"),
        (SearchQuery("hat", personal=1.5), "personal is 1.5"),
        (SearchQuery("hat", personal=float("nan")), "personal is nan"),
        (SearchQuery("hat", allowed=torch.ones(3, dtype=torch.bool)), r"mask is \(3,\)"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(searcher, query, told):
    with pytest.raises(ValueError, match=told):
        searcher.search([query])


@pytest.mark.parametrize("text", ["hammer nail", "tool", "😀"])
def test_only_allowed_items_come_also_where_the_mask_knows_newer_ones(searcher, text):
    allowed = torch.zeros(len(IDS) + 2, dtype=torch.bool)
    allowed[[NAIL, DRILL, len(IDS)]] = True
    answer = one(searcher, SearchQuery(text, allowed=allowed))
    assert set(ids(answer)) == {IDS[NAIL], IDS[DRILL]}


def test_searches_together_are_answered_as_alone(searcher):
    queries = [
        SearchQuery("hammer", HISTORY, personal=0.5),
        SearchQuery("😀"),
        SearchQuery("red hat", top_k=2),
    ]
    together, alone = searcher.search(queries), [one(searcher, query) for query in queries]
    assert [ids(answer) for answer in together] == [ids(answer) for answer in alone]
    assert searcher.search([]) == []


def test_without_a_share_a_history_changes_nothing(searcher):
    plain = one(searcher, SearchQuery("hammer nail"))
    assert one(searcher, SearchQuery("hammer nail", HISTORY, personal=0.0)) == plain
    assert not plain.personal


@pytest.mark.parametrize("history", [[], [Event("nowhere")]])
def test_a_user_of_whom_nothing_is_known_gets_the_plain_search(searcher, history):
    plain = one(searcher, SearchQuery("hammer nail"))
    answer = one(searcher, SearchQuery("hammer nail", history, personal=1.0))
    assert answer == replace(plain, unknown_items=[event.item_id for event in history])


def test_with_all_the_weight_a_history_alone_orders_what_was_found(searcher):
    answer = one(searcher, SearchQuery("hammer nail", HISTORY, len(IDS), personal=1.0))
    [liked] = make_recommender().rank_items([Query(HISTORY)], [IDS])
    assert answer.personal
    assert ids(answer) == [item.item_id for item in liked.items]
    assert ids(answer) != ids(one(searcher, SearchQuery("hammer nail", top_k=len(IDS))))


def test_personal_search_finds_the_items_of_the_plain_one(by_words):
    plain = one(by_words, SearchQuery("hammer nail hat"))
    personal = one(by_words, SearchQuery("hammer nail hat", HISTORY, personal=0.6))
    assert set(ids(personal)) == set(ids(plain)) == {IDS[HAMMER], IDS[NAIL], IDS[HAT]}


def test_results_below_those_that_a_history_reorders_stay_below_in_their_order(
    searcher, monkeypatch
):
    monkeypatch.setattr("recsys.engine.search.PERSONAL_DEPTH", 3)
    plain = one(searcher, SearchQuery("hammer", top_k=len(IDS)))
    answer = one(searcher, SearchQuery("hammer", HISTORY, len(IDS), personal=1.0))
    scores = [item.score for item in answer.items]
    assert set(ids(answer)[:3]) == set(ids(plain)[:3])
    assert ids(answer)[3:] == ids(plain)[3:]
    assert all(high > low for high, low in zip(scores, scores[1:], strict=False))


def test_an_adapter_turns_the_query_but_not_the_items(searcher):
    back = searcher.with_fusion(Fusion(1.0, -2 * torch.eye(16)))
    near = ids(one(searcher.with_fusion(Fusion(1.0)), SearchQuery("hammer", top_k=len(IDS))))
    assert ids(one(back, SearchQuery("hammer", top_k=len(IDS)))) == near[::-1]


def test_a_prompt_stands_before_the_query(encoder, tiny_backbone):
    config = ModelConfig(backbone=tiny_backbone)
    prompted = QueryEncoder(load_text_encoder(config), load_tokenizer(tiny_backbone), "title : ")
    assert torch.allclose(prompted.encode(["saw"]), encoder.encode(["title : saw"]))

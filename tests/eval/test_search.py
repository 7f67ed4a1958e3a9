"""Search metrics by hand, and what is measured of a searcher."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.engine.search import Searcher
from recsys.eval.search import DEPTH, describe_queries, graded_ndcg, measure, score_rankings
from recsys.index.fusion import Fusion
from recsys.index.lexical import LexicalIndex, split_words
from recsys.index.queries import JudgedQueries, JudgedQuery
from recsys.metrics import NO_ITEM, ranking_metrics
from tests.engine.test_recommender import TITLES, make_catalogue

WORDS = [split_words(title or "") for title in TITLES]


def judged(text: str, **relevance: float) -> JudgedQuery:
    items = [int(name[1:]) for name in relevance]
    return JudgedQuery(text, np.array(items), np.array(list(relevance.values())))


def rankings(*rows: list[int]) -> np.ndarray:
    ranked = np.full((len(rows), DEPTH), NO_ITEM)
    for place, row in zip(ranked, rows, strict=True):
        place[: len(row)] = row
    return ranked


def test_a_better_item_gains_more():
    query = judged("hat", i0=1.0, i1=0.5)
    best = 1.0 + 0.5 / math.log2(3)
    assert graded_ndcg(np.array([0, 1]), query) == pytest.approx(1.0)
    assert graded_ndcg(np.array([1, 0]), query) == pytest.approx((0.5 + 1 / math.log2(3)) / best)
    assert graded_ndcg(np.array([5, NO_ITEM]), query) == 0.0


def test_with_one_relevance_it_is_the_common_ndcg():
    random = np.random.default_rng(0)
    ranked = np.stack([random.permutation(40) for _ in range(20)])
    targets = [random.choice(40, size=size, replace=False) for size in range(1, 21)]
    wanted = ranking_metrics(ranked, targets, [10])["ndcg@10"]
    queries = [JudgedQuery("q", items, np.ones(len(items))) for items in targets]
    found = [graded_ndcg(row, query) for row, query in zip(ranked, queries, strict=True)]
    assert found == pytest.approx(wanted.tolist())


def test_means_are_over_all_queries_and_over_those_of_a_length():
    queries = [judged("hat", i0=1.0), judged("red hat", i1=1.0), judged("a b c d e", i2=1.0)]
    scores = score_rankings(rankings([0], [3, 1], []), queries)
    assert scores["all"]["mrr@100"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["all"]["recall@100"] == pytest.approx(2 / 3)
    assert scores["all"]["zero_results"] == pytest.approx(1 / 3)
    assert {name: part["queries"] for name, part in scores.items()} == {
        "all": 3,
        "1 word": 1,
        "2-3 words": 1,
        "4+ words": 1,
    }
    assert scores["2-3 words"]["ndcg@10"] == pytest.approx(1 / math.log2(3))
    assert scores["4+ words"]["zero_results"] == 1.0


def test_popular_items_in_place_of_results_count_as_no_results():
    catalogue = make_catalogue()
    searcher = Searcher(LexicalIndex.build(WORDS), None, Fusion(0.0), catalogue)
    queries = [judged("hammer", i7=1.0), judged("sofa", i1=1.0)]  # item 1 is the most popular
    scores = measure(searcher, catalogue, WORDS, queries)
    assert set(scores) == {"search", "tfidf"}
    for found in scores.values():
        assert found["all"]["ndcg@10"] == found["all"]["zero_results"] == 0.5


def test_without_queries_there_is_nothing_to_measure():
    catalogue = make_catalogue()
    searcher = Searcher(LexicalIndex.build(WORDS), None, Fusion(0.0), catalogue)
    with pytest.raises(ValueError, match="no query is in the test split"):
        measure(searcher, catalogue, WORDS, [])


def test_queries_are_told_by_split_and_rows_by_what_became_of_them():
    queries = JudgedQueries({"train": [judged("a", i0=1.0)], "test": []}, {"used": 3})
    assert describe_queries(queries) == {"rows": {"used": 3}, "queries": {"train": 1, "test": 0}}

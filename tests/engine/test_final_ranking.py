"""A search whose best results a fitted ranker orders once more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.artifact import Artifact, Manifest
from recsys.config import RankerConfig
from recsys.engine.final_ranking import ranker_of
from recsys.engine.fit_ranker import clicked_lists, fit_ranker, judged_lists
from recsys.engine.recommender import Event, Query
from recsys.engine.search import Searcher, SearchQuery
from recsys.index.fusion import Fusion
from recsys.index.lexical import LexicalIndex
from recsys.index.queries import JudgedQuery
from recsys.ranker.calibration import Calibration
from recsys.ranker.features import FEATURES
from recsys.ranker.ranker import SETTINGS, FinalRanker, load_ranker
from recsys.ranker.shown import ShownList
from recsys.ranker.trees import Lists, fit_trees
from tests.engine.test_recommender import IDS, TITLES, make_catalogue, make_recommender

WORDS = [["tool"] * (8 - number) + ["x"] * number for number in range(8)]
"""The search alone orders the items by number."""


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    catalogue = make_catalogue()
    return Searcher(LexicalIndex.build(WORDS, catalogue.ranking), None, Fusion(0.0), catalogue)


@pytest.fixture(scope="module")
def ranker() -> FinalRanker:
    """It likes what has few of the words best."""
    random = np.random.default_rng(0)
    features = random.random((400, len(FEATURES))).astype(np.float32)
    gains = (features[:, FEATURES.index("words_of_best")] < 0.2).astype(np.float64)
    lists = Lists(features, gains, np.full(40, 10))
    return FinalRanker(
        fit_trees(lists, lists, FEATURES), Calibration(np.array([-9, 9]), np.eye(2)[1])
    )


def items(searcher: Searcher, top_k: int = 8) -> list[str]:
    [answer] = searcher.search([SearchQuery("tool", top_k=top_k)])
    return [item.item_id for item in answer.items]


def test_the_ranker_decides_the_order_and_tells_probabilities(searcher, ranker):
    [alone] = searcher.search([SearchQuery("tool", top_k=8)])
    [answer] = searcher.with_ranker(ranker).search([SearchQuery("tool", top_k=8)])
    assert [item.item_id for item in alone.items] == IDS
    assert [item.probability for item in alone.items] == [None] * 8
    assert sorted(items(searcher.with_ranker(ranker))) == IDS
    assert answer.items[0].item_id == IDS[-1]
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    chances = [item.probability or 0 for item in answer.items]
    assert chances == sorted(chances, reverse=True)
    assert answer.items[0].lexical_rank == 8


def test_what_is_below_the_ranked_stays_below_in_its_order(searcher, ranker, monkeypatch):
    monkeypatch.setattr("recsys.engine.final_ranking.RANKED", 3)
    [answer] = searcher.with_ranker(ranker).search([SearchQuery("tool", top_k=8)])
    found = [item.item_id for item in answer.items]
    assert sorted(found[:3]) == IDS[:3]
    assert found[3:] == IDS[3:]
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert all(item.probability is None for item in answer.items[3:])


def test_a_ranker_orders_no_deeper_than_it_was_taught(searcher, ranker):
    shallow = searcher.with_ranker(replace(ranker, depth=2))
    assert sorted(items(shallow)[:2]) == IDS[:2]
    assert items(shallow)[2:] == IDS[2:]
    assert items(
        searcher.with_ranker(load_ranker(replace(ranker, depth=2).files().__getitem__))
    ) == (items(shallow))


def test_a_ranker_without_anything_to_rank_changes_nothing(searcher, ranker):
    nothing = SearchQuery("nosuchword")
    assert searcher.with_ranker(ranker).search([nothing]) == searcher.search([nothing])


def test_a_saved_ranker_ranks_as_it_did_and_one_of_other_features_is_refused(searcher, ranker):
    files = ranker.files()
    loaded = load_ranker(files.__getitem__)
    assert items(searcher.with_ranker(loaded)) == items(searcher.with_ranker(ranker))
    files[SETTINGS] = files[SETTINGS].replace(b'"brand_share"', b'"brand_part"')
    with pytest.raises(ValueError, match="brand_part, brand_share"):
        load_ranker(files.__getitem__)


def test_judged_queries_teach_what_fits_them(searcher):
    queries = [JudgedQuery("tool", np.array([6, 7]), np.array([0.5, 1.0]))] * 40
    lists = judged_lists(
        searcher, searcher.facts(), [*queries, JudgedQuery("y", *[np.ones(1)] * 2)]
    )
    assert lists.sizes.tolist() == [8] * 40
    assert lists.gains[:8] == pytest.approx([0, 0, 0, 0, 0, 0, 1 / 3, 2 / 3])
    fitted = fit_ranker(lists, lists)
    assert items(searcher.with_ranker(fitted.ranker), 2) == [IDS[7], IDS[6]]
    assert fitted.facts["train_lists"] == 40


def test_of_a_log_only_items_that_are_found_are_learned(searcher):
    shown = ShownList("tool", np.array([7, 99, 0]), np.array([1, 2, 3]), np.array([1, 0, 0]))
    lists, depth = clicked_lists(searcher, searcher.facts(), [shown], None)
    assert lists.sizes.tolist() == [2]
    assert lists.gains.tolist() == [1, 0]
    assert depth == 8
    assert lists.features[:, FEATURES.index("words_place")].tolist() == [8, 1]


class Longest:
    """Stands for a language model that likes long titles, and longer ones after a history."""

    def score(self, query: str, history: list[str], titles: list[str]) -> torch.Tensor:
        """(C,) scores."""
        assert query == "tool"
        return torch.tensor([float(len(title) + 100 * len(history)) for title in titles])


def test_a_history_has_a_say_in_the_features_only_where_the_query_lets_it(searcher):
    personal = Searcher(
        LexicalIndex.build(WORDS), None, Fusion(0.0), make_catalogue(), make_recommender()
    )
    history = [Event(IDS[3]), Event("gone")]
    queries = [SearchQuery("tool", history, personal=share) for share in (0.0, 0.5)]
    plain, liked = personal.candidates(queries, Longest())  # pyright: ignore
    [answer] = make_recommender().rank_items([Query(history)], [IDS])
    wanted = {item.item_id: item.score for item in answer.items}
    assert np.isnan(plain.sequence).all()
    assert liked.sequence == pytest.approx([wanted[item_id] for item_id in IDS])
    lengths = np.array([len(title or item) for title, item in zip(TITLES, IDS, strict=True)])
    assert plain.cross.tolist() == lengths.tolist()
    assert liked.cross.tolist() == (100 + lengths).tolist()
    assert np.isnan(searcher.candidates([queries[1]])[0].sequence).all()


def test_a_log_teaches_how_much_a_history_says():
    personal = Searcher(
        LexicalIndex.build([["tool"]] * 8), None, Fusion(0.0), make_catalogue(), make_recommender()
    )
    log = []
    for last in range(8):
        [answer] = make_recommender().rank_items([Query([Event(IDS[last])])], [IDS])
        clicked = np.array([int(item == answer.items[0].item_id) for item in IDS])
        log += [ShownList("tool", np.arange(8), np.arange(1, 9), clicked, (IDS[last],))] * 10
    lists, depth = clicked_lists(personal, personal.facts(), log, None)
    ranker = fit_ranker(lists, lists, depth=depth).ranker
    assert ranker.reads_histories
    assert not ranker.reads_cross
    for last in range(8):
        query = SearchQuery("tool", [Event(IDS[last])], personal=1e-9)
        [found] = personal.with_ranker(ranker).search([query])
        [liked] = make_recommender().rank_items([Query(query.history)], [IDS])
        assert found.items[0].item_id == liked.items[0].item_id


def test_a_column_of_times_must_be_one_of_numbers(searcher):
    with pytest.raises(ValueError, match="no number column 'added'"):
        searcher.facts("added")


def test_a_ranker_of_another_index_is_refused():
    def made(kind: str, parents: dict[str, str]) -> Artifact:
        manifest = Manifest(
            kind=kind,
            schema_version=1,
            code_version="0",
            config={},
            parents=parents,
            facts={},
            files=[],
        )
        return Artifact(f"memory/{kind}", manifest)

    with pytest.raises(ValueError, match="fitted to index abc, not to memory/index"):
        ranker_of(made("ranker", {"index": "abc"}), made("index", {}))


def test_a_ranker_learns_from_judgements_or_from_a_log():
    for given in ({}, {"queries": "q.parquet", "shown": "s.parquet"}):
        with pytest.raises(ValueError, match="one of them"):
            RankerConfig(**given)

"""A shop's search with a final ranker: given items stand as the whole search has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from recsys.engine.catalogue import Catalogue
from recsys.engine.query.facets import Facets
from recsys.engine.query.suggest import Suggester
from recsys.engine.query.understander import QueryUnderstander
from recsys.engine.search import FoundItem, Searcher
from recsys.engine.shop_search import ShopQuery, ShopSearch
from recsys.index.fusion import Fusion
from recsys.index.lexical import LexicalIndex, split_words
from recsys.ranker.calibration import Calibration
from recsys.ranker.features import FEATURES, SECONDS_A_DAY
from recsys.ranker.ranker import FinalRanker
from recsys.ranker.trees import Lists, fit_trees
from tests.engine.query.shop import shop_items

TEXT = "red tent"
"""Words of 30 items, and both words of four."""
ITEMS = shop_items().append_column("added", pa.array(np.arange(96.0) * SECONDS_A_DAY))


def ranker_that_likes(feature: str, fits: Callable[[np.ndarray], np.ndarray]) -> FinalRanker:
    """Of lists whose values of the feature are 0 to 100; nothing else tells what fits."""
    features = np.full((400, len(FEATURES)), np.nan, np.float32)
    values = np.random.default_rng(0).uniform(0, 100, 400)
    features[:, FEATURES.index(feature)] = values
    lists = Lists(features, fits(values).astype(np.float64), np.full(40, 10))
    trees = fit_trees(lists, lists, FEATURES)
    line = Calibration(np.array([-9.0, 9.0]), np.array([0.0, 1.0]))
    return FinalRanker(trees, line, added_column="added")


@pytest.fixture(scope="module")
def cheap() -> FinalRanker:
    """It likes what is cheap; at most 20 of what is found are ranked."""
    return replace(ranker_that_likes("price", lambda price: price < 50), depth=20)


@cache
def parts() -> tuple[QueryUnderstander, Suggester, Facets]:
    """What reads a text; it takes a second."""
    return QueryUnderstander(ITEMS), Suggester.of_catalogue(ITEMS), Facets(ITEMS)


def shop(ranker: FinalRanker | None) -> ShopSearch:
    catalogue = Catalogue(ITEMS)
    words = [split_words(title) for title in ITEMS["title"].to_pylist()]
    lexical = LexicalIndex.build(words, catalogue.ranking)
    searcher = Searcher(lexical, None, Fusion(0.0), catalogue, None, ranker)
    return ShopSearch(searcher, catalogue, *parts())


def ids(found: list[FoundItem]) -> list[str]:
    return [item.item_id for item in found]


def test_given_items_stand_as_they_do_among_all_that_is_found(cheap: FinalRanker):
    ranked = shop(cheap)
    whole = ranked.search(ShopQuery(TEXT, top_k=96, use_understanding=False)).found.items
    assert ids(whole) != ids(shop(None).sort(TEXT, ids(whole), [], 0.0))
    some = whole[::3]
    black_wallet = "i014"
    given = ranked.sort(TEXT, [*ids(some)[::-1], "unknown", black_wallet], [], 0.0)
    assert given == some


def test_what_is_given_beside_an_item_changes_neither_its_place_nor_its_probability(
    cheap: FinalRanker,
):
    ranked = shop(cheap)
    together = ranked.sort(TEXT, ITEMS["item_id"].to_pylist(), [], 0.0)
    known = [item for item in together if item.probability is not None]
    assert len(known) == 20
    assert [ranked.sort(TEXT, [item.item_id], [], 0.0) for item in known] == [[i] for i in known]


def test_given_items_that_the_ranker_never_sees_follow_without_a_probability(
    cheap: FinalRanker, monkeypatch: pytest.MonkeyPatch
):
    for module in ("shop_search", "final_ranking"):
        monkeypatch.setattr(f"recsys.engine.{module}.RANKED", 5)
    found = shop(cheap).sort(TEXT, ITEMS["item_id"].to_pylist(), [], 0.0)
    alone = shop(None).sort(TEXT, ITEMS["item_id"].to_pylist(), [], 0.0)
    assert set(ids(found[:5])) == set(ids(alone[:5]))
    assert ids(found[5:]) == ids(alone[5:])
    assert [item.probability is None for item in found] == [False] * 5 + [True] * (len(alone) - 5)
    scores = [item.score for item in found]
    assert scores == sorted(scores, reverse=True)


def test_nothing_fits_a_text_of_other_words(cheap: FinalRanker):
    assert shop(cheap).sort("submarine", ["i000", "i001"], [], 0.0) == []
    assert shop(cheap).sort(TEXT, [], [], 0.0) == []


def test_what_is_new_is_told_from_the_time_that_a_search_names():
    fresh = shop(ranker_that_likes("age_days", lambda days: days < 30))

    def first(day: float) -> str:
        asked = ShopQuery(TEXT, use_understanding=False, now=day * SECONDS_A_DAY)
        return fresh.search(asked).found.items[0].item_id

    for day in (40, 60, 80):
        added = int(first(day).removeprefix("i"))
        assert day - 30 <= added, (day, added)
    assert first(40) != first(80)

"""Explanations: exact, faithful to the model, and honest in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from recsys.data.collate import collate_histories
from recsys.engine.catalogue import NO_VALUE, Catalogue
from recsys.engine.explain import MIN_CONTRIBUTION, NO_EVENT, Explainer
from recsys.engine.recommender import Event, Query, Recommender
from recsys.index.item_index import ExactIndex
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import Explanation, History
from tests.engine.test_recommender import (
    CONFIG,
    IDS,
    MAX_HISTORY,
    NUM_ITEMS,
    make_recommender,
    one,
    query,
)

ITEMS = {
    "item_id": ["a", "b", "c", "d", "e", "f"],
    "title": ["Saw", "Drill", "锤子", None, "Hat", "S" * 100],
    "category": ["Tools", "Tools", "Tools", "工具", None, ""],
    "brand": ["Bosch", "Makita", "Bosch", "Bosch", None, None],
    "price": [10.0, 20.0, None, 5.0, 1.0, 2.0],
    "train_count": [31, 960, 8, 1, 0, 0],
    "removed": [False] * 6,
}
A, B, C, D, E, LONG = range(6)
BY_SUM = torch.eye(6)
BY_SUM[A] = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0, 0.0])
"""Item a is like a, b, c and d; all others are like themselves alone."""


def catalogue(**columns: list) -> Catalogue:
    return Catalogue(pa.table(ITEMS | columns))


def explainer(vectors: torch.Tensor = BY_SUM, calls: list[int] | None = None) -> Explainer:
    """Users are the sum of their items, of length 1: what an event does can be told by hand."""

    class Sums:
        def score(
            self, histories: Sequence[History], items: Sequence[int], older: History
        ) -> torch.Tensor:
            assert len(older) == 0
            if calls is not None:
                calls.append(len(histories))
            sums = [F.normalize(vectors[h.item_indexes].sum(0), dim=0) for h in histories]
            return torch.stack(sums) @ vectors[list(items)].T

    return Explainer(Sums(), catalogue(), max_history=4)


def explain(history: list[int], item: int) -> Explanation:
    (found,) = explainer().explain(History.of_items(history), [item])
    return found


def score_of(recommender: Recommender, history: History, item: int) -> float:
    (ranked,) = recommender.rank([history], [NUM_ITEMS], [[]])
    return dict(zip(ranked.item_indexes, ranked.scores, strict=True))[item]


def without(history: History, events: Sequence[int]) -> History:
    return history.take(np.setdiff1d(np.arange(len(history)), events))


class TestContributions:
    def test_each_is_the_score_with_the_event_less_that_without(self):
        recommender = make_recommender()
        history = History(
            np.array([2, 5, 7, 5]), np.array([0, 60, 9000, 90_000]), np.array([0, 1, 2, 0])
        )
        items = [3, 0, 6]
        scores, moved = recommender.explainer.leave_one_out(history, items)
        for k, item in enumerate(items):
            full = score_of(recommender, history, item)
            assert scores[k] == pytest.approx(full, abs=1e-6)
            for event in range(len(history)):
                left = score_of(recommender, without(history, [event]), item)
                assert moved[event, k] == pytest.approx(full - left, abs=1e-6)

    def test_by_hand(self):
        _, moved = explainer().leave_one_out(History.of_items([B, E]), [B, A])
        assert moved[:, 0].tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.5) - 1])
        assert moved[0, 1] == pytest.approx(0.5 * math.sqrt(0.5))

    def test_an_only_event_is_compared_with_nothing(self):
        scores, moved = explainer().leave_one_out(History.of_items([B]), [A, B])
        assert scores.tolist() == moved[0].tolist() == [0.5, 1.0]

    def test_one_pass_of_one_history_more_than_events_whatever_the_number_of_items(self):
        calls: list[int] = []
        explainer(calls=calls).explain(History.of_items([B, C, E]), [A, B, C, D])
        assert calls == [4]

    def test_only_events_that_the_model_sees_are_explained(self):
        recommender = make_recommender()
        long, newest = History.of_items([6, 4, 0, 1, 2, 3]), History.of_items([0, 1, 2, 3])
        found = recommender.explainer.leave_one_out(long, [5])
        assert len(found[1]) == MAX_HISTORY
        assert np.array_equal(found[1], recommender.explainer.leave_one_out(newest, [5])[1])

    def test_asked_twice_it_answers_the_same(self):
        recommender, asked = make_recommender(), query(2, 5, 7)
        assert recommender.explain(asked, IDS) == recommender.explain(asked, IDS)


class TestFaithfulness:
    def drops(self, recommender: Recommender, seed: int) -> list[float]:
        """How far the best item's score falls without its two top, random and bottom events."""
        draw = np.random.default_rng(seed)
        history = History.of_items(draw.integers(NUM_ITEMS, size=MAX_HISTORY))
        (ranked,) = recommender.rank([history], [1], [[]])
        item = ranked.item_indexes[0]
        _, moved = recommender.explainer.leave_one_out(history, [item])
        order = np.argsort(-moved[:, 0])
        some = draw.choice(MAX_HISTORY, size=2, replace=False)
        full = score_of(recommender, history, item)
        return [
            full - score_of(recommender, without(history, events), item)
            for events in (order[:2], some, order[-2:])
        ]

    def test_without_the_top_events_a_score_falls_more_than_without_others(self):
        drops = [self.drops(make_recommender(seed=seed % 4), seed) for seed in range(80)]
        top, random, bottom = np.mean(drops, axis=0)
        assert top > random + 0.05 > bottom + 0.1


NUM_SIGNALS, NUM_NOISE, LENGTH = 4, 6, 4
SIGNALS = np.arange(NUM_SIGNALS)
NOISE = NUM_SIGNALS + np.arange(NUM_NOISE)
FIRST_TARGET = NUM_SIGNALS + NUM_NOISE
NUM_PLANTED = FIRST_TARGET + NUM_SIGNALS
PLANTED = ModelShape(num_items=NUM_PLANTED, max_history=LENGTH, num_events=1, text_size=0)


def planted(count: int, seed: int) -> tuple[list[History], np.ndarray, np.ndarray]:
    """Histories of noise with one signal each, the signals' places, and the items they cause."""
    draw = np.random.default_rng(seed)
    items = draw.choice(NOISE, size=(count, LENGTH))
    places, signals = draw.integers(LENGTH, size=count), draw.choice(SIGNALS, size=count)
    items[np.arange(count), places] = signals
    return [History.of_items(row) for row in items], places, FIRST_TARGET + signals


def train_planted() -> RecommenderModel:
    torch.manual_seed(0)
    model = build_model(CONFIG.model_copy(update={"num_layers": 1}), PLANTED)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(150):
        histories, _, targets = planted(64, step)
        items = model.encode_items(ItemInputs(torch.arange(NUM_PLANTED)))
        batch = collate_histories(histories, LENGTH)
        users = model.encode_users(items[batch.item_indexes], batch)
        loss = F.cross_entropy(users @ items.T / 0.1, torch.as_tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trained() -> Recommender:
    model, ids = train_planted(), [str(item) for item in range(NUM_PLANTED)]
    columns = {"item_id": ids, "title": ids, "train_count": [1] * NUM_PLANTED}
    items = pa.table(columns | {"removed": [False] * NUM_PLANTED})
    index = ExactIndex(model.encode_items(ItemInputs(torch.arange(NUM_PLANTED))))
    return Recommender(model, index, Catalogue(items), LENGTH, ["view"], False)


class TestPlantedCause:
    """A trained model, and data in which one known event of each history causes the next."""

    def test_the_explanation_names_the_cause_first(self, trained):
        histories, places, targets = planted(100, seed=1_000)
        ranked = trained.rank(histories, [1] * 100, [[]] * 100)
        learned = [r.item_indexes == [target] for r, target in zip(ranked, targets, strict=True)]
        assert np.mean(learned) > 0.95
        named = [
            trained.explainer.explain(history, [target])[0].events[0][0]
            for history, target in zip(histories, targets, strict=True)
        ]
        causes = [str(h.item_indexes[p]) for h, p in zip(histories, places, strict=True)]
        assert np.mean([a == b for a, b in zip(named, causes, strict=True)]) > 0.95

    def test_without_the_named_event_the_item_loses_its_rank(self, trained):
        histories, _, targets = planted(60, seed=2_000)
        kept = {"top": 0, "bottom": 0}
        for history, target in zip(histories, targets, strict=True):
            _, moved = trained.explainer.leave_one_out(history, [target])
            for name, event in (("top", moved.argmax()), ("bottom", moved.argmin())):
                (ranked,) = trained.rank([without(history, [event])], [1], [[]])
                kept[name] += ranked.item_indexes == [target]
        assert kept["bottom"] > 50
        assert kept["top"] < 30


class TestWords:
    def test_events_that_share_an_attribute(self):
        found = explain([B, C, E], A)
        assert [event[:2] for event in found.events] == [("b", "Drill"), ("c", "锤子")]
        assert all(contribution > MIN_CONTRIBUTION for *_, contribution in found.events)
        assert found.shared == [("category", "Tools"), ("brand", "Bosch")]
        assert found.sentence == (
            'Because of "Drill" and "锤子", which share the category Tools. '
            'It has the brand Bosch in common with "锤子".'
        )
        assert (found.item.item_id, found.item.title) == ("a", "Saw")
        assert found.item.score == pytest.approx(1 / math.sqrt(3))

    def test_one_event_that_shares_everything(self):
        said = 'Because of "锤子", which shares the category Tools and the brand Bosch.'
        assert explain([C, E], A).sentence == said

    def test_an_event_that_shares_nothing(self):
        found = explain([E], E)
        assert (found.shared, found.sentence) == ([], "Because it is in the history itself.")
        (other,) = explainer(torch.ones(6, 2)).explain(History.of_items([E]), [LONG])
        assert (other.shared, other.sentence) == ([], 'Because of "Hat".')

    def test_an_item_that_others_and_itself_caused(self):
        said = 'Because of "Drill", which shares the category Tools. Also, it is in the history '
        assert explain([B, A, E], A).sentence == said + "itself."

    def test_an_item_without_title_goes_by_its_id(self):
        found = explain([D], A)
        assert found.events == [("d", None, 0.5)]
        assert found.sentence == 'Because of "d", which shares the brand Bosch.'

    def test_a_long_title_is_cut_in_the_sentence_alone(self):
        (found,) = explainer(torch.ones(6, 2)).explain(History.of_items([LONG]), [A])
        assert found.events[0][1] == "S" * 100
        assert found.sentence == f'Because of "{"S" * 57}...".'

    def test_an_item_that_occurs_twice_is_named_once(self):
        vectors = torch.eye(6)
        vectors[A] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
        (found,) = explainer(vectors).explain(History.of_items([B, E, B]), [A])
        assert [event[0] for event in found.events] == ["b", "b"]
        assert found.sentence == 'Because of "Drill", which shares the category Tools.'

    @pytest.mark.parametrize("history", [[B, B], [C, E]])
    def test_where_no_event_raised_the_score_it_says_so(self, history):
        found = explain(history, LONG if history == [C, E] else B)
        assert (found.events, found.shared, found.sentence) == ([], [], NO_EVENT)


class TestPopular:
    @pytest.mark.parametrize(
        ("item", "share", "said"),
        [
            (A, 0.031, "Popular: taken in 3.1% of all events."),
            (D, 0.001, "Popular: taken in 0.1% of all events."),
            (E, 0.0, "No history to go by, and no event of this item yet."),
        ],
    )
    def test_without_history_the_items_share_is_told(self, item, share, said):
        found = explain([], item)
        assert (found.events, found.shared, found.sentence) == ([], [], said)
        assert found.item.score == pytest.approx(share)

    def test_a_small_share_is_not_told_as_nothing(self):
        counts = [1, 9_999, *[0] * 4]
        recommender = make_recommender()
        seldom = Explainer(recommender.scorer, catalogue(train_count=counts), 4)
        (found,) = seldom.explain(History.of_items([]), [A])
        assert found.sentence == "Popular: taken in under 0.1% of all events."


class TestQueries:
    def test_explains_what_it_recommends(self):
        recommender = make_recommender()
        asked = Query([Event("gone"), Event(IDS[2], 100, "cart"), Event(IDS[5], 9000)], 5)
        answer = one(recommender, asked)
        found = recommender.explain(asked, [item.item_id for item in answer.items])
        assert [e.item.item_id for e in found] == [item.item_id for item in answer.items]
        scores = [item.score for item in answer.items]
        assert [e.item.score for e in found] == pytest.approx(scores, abs=1e-6)
        assert {event[0] for e in found for event in e.events} <= {IDS[2], IDS[5]}

    def test_without_known_history_it_explains_by_popularity(self):
        recommender, asked = make_recommender(), Query([Event("gone")], 3)
        answer = one(recommender, asked)
        found = recommender.explain(asked, [item.item_id for item in answer.items])
        assert [e.item for e in found] == answer.items

    def test_an_item_that_is_not_in_the_catalogue_is_refused(self):
        with pytest.raises(ValueError, match="not in the catalogue: gone, lost"):
            make_recommender().explain(query(2), ["gone", IDS[1], "lost"])


class TestCatalogue:
    def test_attributes_by_index(self):
        assert catalogue().attribute("category", [D, E, LONG, A]) == ["工具", None, None, "Tools"]
        assert catalogue().attribute("brand", []) == []

    def test_equal_values_have_equal_codes(self):
        codes = catalogue().codes("category")
        assert codes[A] == codes[B] == codes[C] != codes[D]
        assert codes[[E, LONG]].tolist() == [NO_VALUE, NO_VALUE]
        assert min(codes[A], codes[D]) > NO_VALUE

    def test_unknown_prices_are_no_numbers(self):
        prices = catalogue().prices
        assert np.isnan(prices[C])
        assert prices[[A, B]].tolist() == [10.0, 20.0]

    def test_a_catalogue_of_titles_alone_has_no_attributes(self):
        plain = Catalogue(pa.table(ITEMS).drop_columns(["category", "brand", "price"]))
        assert plain.attribute("brand", [A, B]) == [None, None]
        assert (plain.codes("category") == NO_VALUE).all()
        assert np.isnan(plain.prices).all()

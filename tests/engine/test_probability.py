"""Probabilities of answered items: those that the report judges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from recsys.data.collate import collate_histories
from recsys.engine.probability import ProbabilityOf
from recsys.engine.recommender import Query, Recommender
from recsys.eval.predictions import HeldOutTargets, _batches, _predict_probabilities
from recsys.index.item_index import ExactIndex
from recsys.models.build import add_heads
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import Answer, History
from tests.engine.test_recommender import (
    CONFIG,
    EVENTS,
    IDS,
    MAX_HISTORY,
    NUM_ITEMS,
    SHAPE,
    make_catalogue,
    make_model,
    make_recommender,
    query,
    vectors_of,
)


@pytest.fixture
def model() -> RecommenderModel:
    """A model whose probability head tells items and users apart."""
    made = make_model()
    torch.manual_seed(1)
    add_heads(made, ["probability"], CONFIG, SHAPE)
    assert made.heads is not None
    assert made.heads.probability is not None
    for parameter in made.heads.parameters():
        parameter.requires_grad_(False).add_(torch.randn(parameter.shape) * 0.3)
    made.heads.probability.item_counts.copy_(torch.arange(NUM_ITEMS))
    made.heads.probability.calibration.copy_(torch.tensor([0.8, -0.2]))
    return made.eval()


def recommender(model: RecommenderModel, trained: np.ndarray | None = None) -> Recommender:
    index, items = ExactIndex(vectors_of(model)), make_catalogue()
    return Recommender(
        *(model, index, items, MAX_HISTORY, EVENTS, False, None, None), trained=trained
    )


def by_id(answer: Answer) -> dict[str, float | None]:
    return {item.item_id: item.probability for item in answer.items}


def judged(model: RecommenderModel, histories: list[list[int]]) -> Iterator[dict[str, float]]:
    """What the report says of each history's items, those that it asks for."""
    held_out = HeldOutTargets(
        [History.of_items(h) for h in histories], [np.arange(NUM_ITEMS) for _ in histories]
    )
    head = model.heads.probability
    [pairs] = list(_batches(model, vectors_of(model), held_out, MAX_HISTORY, 256, 0))
    said = _predict_probabilities(head, vectors_of(model), pairs)["model"]
    rows = np.cumsum(pairs.counts_TL.sum(1).numpy()) - pairs.counts_TL.sum(1).numpy()
    for first in range(0, len(rows), NUM_ITEMS):
        own = said[rows[first : first + NUM_ITEMS]].tolist()
        yield dict(zip(IDS, own, strict=True))


HISTORIES = [[2, 5], [0, 1, 2, 3, 4, 6], [7]]


def test_they_are_what_the_report_judges(model):
    expected = list(judged(model, HISTORIES))
    queries = [query(*items) for items in HISTORIES]
    for answers in (
        recommender(model).recommend(queries),
        recommender(model).rank_items(queries, [IDS] * len(queries)),
    ):
        for answer, wanted in zip(answers, expected, strict=True):
            assert len(answer.items) == NUM_ITEMS
            assert by_id(answer) == pytest.approx(wanted, abs=1e-6)
    assert len({round(p, 5) for wanted in expected for p in wanted.values()}) > NUM_ITEMS


def test_without_head_or_history_there_are_none(model):
    [popular, known] = recommender(model).recommend([query(top_k=3), query(1, top_k=3)])
    assert [item.probability for item in popular.items] == [None] * 3
    assert all(item.probability is not None for item in known.items)
    [answer] = make_recommender().rank_items([query(2, 5)], [IDS])
    assert [item.probability for item in answer.items] == [None] * NUM_ITEMS


def test_an_item_is_known_by_its_row_in_training(model):
    """Counts are the training's: of an item that came later there are none."""
    trained = np.array([3, 2, 1, 0, 4, 5, 6, -1])
    [found] = recommender(model, trained).rank_items([Query(query(2, 5).history)], [IDS])
    history = History.of_items([2, 5])
    batch = collate_histories([history], MAX_HISTORY)
    user = model.encode_users(vectors_of(model)[batch.item_indexes], batch)
    head = model.heads.probability
    logits = head(user, vectors_of(model), torch.from_numpy(trained))
    wanted = dict(zip(IDS, head.probabilities(logits).tolist(), strict=True))
    assert by_id(found) == pytest.approx(wanted, abs=1e-6)
    assert by_id(found) != pytest.approx(next(judged(model, [[2, 5]])), abs=1e-4)


def test_nothing_to_judge_gives_nothing(model):
    probability = ProbabilityOf(model, ExactIndex(vectors_of(model)), MAX_HISTORY)
    assert probability.of([], []) == []
    empty, known = History.of_items([]), History.of_items([1])
    assert probability.of([empty, known], [[1, 2], []]) == [[None, None], []]

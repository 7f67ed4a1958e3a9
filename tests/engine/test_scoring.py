"""Cosine and bonus together, against scoring every item."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.engine.scoring import Scorer
from recsys.index.item_index import ExactIndex, make_index
from recsys.index.transitions import Transitions
from recsys.schema import History
from tests.engine.test_recommender import (
    COUNTS,
    MAX_HISTORY,
    NUM_ITEMS,
    make_catalogue,
    make_model,
    vectors_of,
)

REACH = MAX_HISTORY + 2
"""The memory sees more than the model."""


def transitions(seed: int, share: float = 0.5, weight: float = 2.0) -> Transitions:
    random = np.random.default_rng(seed)
    found = random.random((NUM_ITEMS, NUM_ITEMS)) < share
    starts = np.concatenate([[0], np.cumsum(found.sum(1))])
    strengths = random.random(found.sum()).astype(np.float32)
    items = np.nonzero(found)[1].astype(np.int32)
    returns = random.uniform(0.5, 2, NUM_ITEMS + 1).astype(np.float32)
    chosen = {"weight": weight, "decay": 0.7, "again": 0.3 * (seed % 2), "reach": REACH}
    return Transitions(starts, items, strengths, **chosen, returns=returns)


def make_scorer(memory: Transitions | None, states_mb: int = 0) -> Scorer:
    model = make_model()
    order = torch.tensor(COUNTS).argsort(descending=True, stable=True)
    index = ExactIndex(vectors_of(model), order)
    return Scorer(model, index, make_catalogue(), MAX_HISTORY, memory, states_mb)


def histories(seed: int) -> list[History]:
    random = np.random.default_rng(seed)
    return [History.of_items(random.integers(0, NUM_ITEMS, n)) for n in (1, 3, 4, 7)]


def dense_bonuses(memory: Transitions, history: History) -> np.ndarray:
    """By a plain loop over the events that the memory reaches."""
    found = np.zeros(NUM_ITEMS)
    for age, item in enumerate(reversed(history.item_indexes[-REACH:].tolist())):
        found[item] += memory.again * memory.returns[item]
        for place in range(memory.starts[item], memory.starts[item + 1]):
            strength = memory.decay**age * memory.strengths[place]
            found[memory.items[place]] += memory.weight * strength
    return found


@pytest.mark.parametrize("memory", [None, transitions(0)], ids=["vectors", "memory"])
def test_a_scorer_that_remembers_histories_finds_what_it_would_without(memory):
    plain, remembering, asked = make_scorer(memory), make_scorer(memory, 1), histories(0)
    longer = [one.then(History.of_items([2])) for one in asked]
    for some in (asked, asked[::-1], longer):
        scores, items = plain.search(some, 3, [[]] * len(some))
        found, same = remembering.search(some, 3, [[]] * len(some))
        assert same.tolist() == items.tolist()
        assert found.numpy() == pytest.approx(scores.numpy(), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("top_k", [1, 3, NUM_ITEMS])
def test_the_search_finds_what_scoring_every_item_finds(seed, top_k):
    memory, asked = transitions(seed), histories(seed)
    excluded = [[], [1], [0, 2], list(range(NUM_ITEMS - 1))]
    plain = make_scorer(None).score(asked, range(NUM_ITEMS)).numpy()
    scores, items = make_scorer(memory).search(asked, top_k, excluded)
    for row, history in enumerate(asked):
        wanted = plain[row] + dense_bonuses(memory, history)
        wanted[excluded[row]] = -np.inf
        left = min(top_k, NUM_ITEMS - len(excluded[row]))
        best = np.argsort(-wanted)[:left]
        assert items[row, :left].tolist() == best.tolist()
        assert scores[row, :left].numpy() == pytest.approx(wanted[best], abs=1e-5)
        assert (scores[row, left:] == -torch.inf).all()


def test_the_search_and_the_score_of_an_item_agree():
    scorer, asked = make_scorer(transitions(1)), histories(1)
    scores, items = scorer.search(asked, NUM_ITEMS, [[]] * len(asked))
    alone = scorer.score(asked, range(NUM_ITEMS)).gather(1, items)
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)


def test_no_item_is_found_twice():
    _, items = make_scorer(transitions(2, share=1.0)).search(histories(2), NUM_ITEMS, [[]] * 4)
    assert [sorted(row) for row in items.tolist()] == [list(range(NUM_ITEMS))] * 4


def test_a_memory_without_weight_changes_nothing():
    asked = histories(3)
    plain = make_scorer(None).search(asked, 5, [[]] * 4)
    same = make_scorer(transitions(2, weight=0.0)).search(asked, 5, [[]] * 4)
    assert same[1].tolist() == plain[1].tolist()


def test_of_equal_scores_the_more_popular_item_comes_first():
    model = make_model()
    vectors = torch.ones(NUM_ITEMS, 16) / 4
    starts = np.array([0, *[NUM_ITEMS] * NUM_ITEMS])
    all_alike = Transitions(starts, np.arange(NUM_ITEMS, dtype=np.int32), np.ones(NUM_ITEMS))
    scorer = Scorer(model, ExactIndex(vectors), make_catalogue(), MAX_HISTORY, all_alike)
    _, items = scorer.search([History.of_items([0])], NUM_ITEMS, [[]])
    by_count = sorted(range(NUM_ITEMS), key=lambda item: (-COUNTS[item], item))
    assert items[0].tolist() == by_count


def test_a_removed_item_is_not_found_by_its_bonus():
    catalogue = make_catalogue()
    catalogue.removed[3] = True
    model = make_model()
    index = ExactIndex(vectors_of(model), removed_N=catalogue.removed)
    scorer = Scorer(model, index, catalogue, MAX_HISTORY, transitions(4, share=1.0))
    scores, items = scorer.search(histories(4), NUM_ITEMS, [[]] * 4)
    assert not ((items == 3) & (scores > -torch.inf)).any()


def test_a_quantised_index_takes_bonuses_too():
    model, memory, asked = make_model(), transitions(5), histories(5)
    removed = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    index = make_index(vectors_of(model), "int8", torch.arange(NUM_ITEMS), removed)
    scorer = Scorer(model, index, make_catalogue(), MAX_HISTORY, memory)
    scores, items = scorer.search(asked, NUM_ITEMS, [[]] * 4)
    exact = make_scorer(memory).score(asked, range(NUM_ITEMS)).gather(1, items)
    torch.testing.assert_close(scores, exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_history_that_nothing_follows_is_answered_by_vectors_alone(precision):
    nothing = transitions(6, share=0.0)
    model, removed = make_model(), torch.zeros(NUM_ITEMS, dtype=torch.bool)
    index = make_index(vectors_of(model), precision, torch.arange(NUM_ITEMS), removed)
    told = (model, index, make_catalogue(), MAX_HISTORY)
    asked = [History.of_items([2, 5])]
    found = [Scorer(*told, memory).search(asked, 5, [[1]]) for memory in (nothing, None)]
    assert found[0][1].tolist() == found[1][1].tolist()
    torch.testing.assert_close(found[0][0], found[1][0])

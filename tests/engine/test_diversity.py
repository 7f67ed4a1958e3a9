"""Maximal marginal relevance by hand and by a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.engine.catalogue import NO_VALUE
from recsys.engine.diversity import choose, pool_size

SCORES = np.array([0.9, 0.8, 0.5, 0.1])
"""Relevance 1, 0.875, 0.5, 0."""
VECTORS = np.array([[2.0, 0.0], [1.6, 1.2], [0.0, 3.0], [-1.0, 0.0]])
"""Cosines with the first: 1, 0.8, 0, -1; of the second with the third 0.6."""
NONE = np.full(4, NO_VALUE)


def chosen(diversity: float, top_k: int = 4) -> list[int]:
    return choose(SCORES, VECTORS, NONE, top_k, diversity, None)


def test_by_hand():
    # After 0: item 1 .4375 - .4, item 2 .25 - 0, item 3 0 + .5. After 3: item 1 as before, item 2
    # still .25.
    assert chosen(0.5) == [0, 3, 2, 1]
    # After 0: item 1 .6125 - .24, item 2 .35, item 3 .3. After 1: item 2 .35 - .18, item 3 .3.
    assert chosen(0.3) == [0, 1, 3, 2]
    assert chosen(0.1) == [0, 1, 2, 3]


def test_without_diversity_it_is_the_order_of_the_scores_and_ties_stay():
    scores = np.array([0.5, 0.5, 0.5, 0.2])
    assert choose(scores, VECTORS, NONE, 3, 0.0, None) == [0, 1, 2]
    assert choose(np.full(4, 0.1), VECTORS, NONE, 9, 0.0, None) == [0, 1, 2, 3]


def test_with_nothing_but_diversity_the_best_is_still_first():
    assert chosen(1.0) == [0, 3, 2, 1]


def test_the_scale_of_the_scores_does_not_matter():
    for diversity in (0.1, 0.3, 0.5, 1.0):
        shares = choose(SCORES / 1e4 + 7, VECTORS, NONE, 4, diversity, None)
        assert shares == chosen(diversity)


def test_a_category_has_a_limit_and_what_has_none_is_free():
    categories = np.array([5, 5, 5, NO_VALUE])
    assert choose(SCORES, VECTORS, categories, 4, 0.0, 2) == [0, 1, 3]
    assert choose(SCORES, VECTORS, categories, 4, 0.0, 1) == [0, 3]
    assert choose(SCORES, VECTORS, categories, 1, 0.0, 1) == [0]
    assert choose(SCORES, VECTORS, NONE, 4, 0.0, 1) == [0, 1, 2, 3]


def test_an_empty_pool_gives_nothing():
    assert choose(np.empty(0), np.empty((0, 2)), NONE[:0], 3, 0.5, 1) == []


def test_a_pool_is_larger_than_what_is_wanted():
    assert all(pool_size(k) >= 2 * k for k in (1, 10, 1_000))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 12),
    diversity=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    limit=st.sampled_from([None, 1, 2]),
)
def test_each_choice_is_the_best_of_what_is_left(seed, size, diversity, limit):
    random = np.random.default_rng(seed)
    scores = -np.sort(-random.random(size))
    vectors, categories = random.normal(size=(size, 3)), random.integers(-1, 3, size)
    found = choose(scores, vectors, categories, 6, diversity, limit)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = (scores - scores[-1]) / (scores[0] - scores[-1] or 1)

    def free(before: list[int]) -> list[int]:
        used = [categories[p] for p in before if categories[p] != NO_VALUE]
        left = [p for p in range(size) if p not in before]
        return [p for p in left if limit is None or used.count(categories[p]) < limit]

    def value(place: int, before: list[int]) -> float:
        likeness = max((float(units[place] @ units[b]) for b in before), default=0.0)
        return (1 - diversity) * relevance[place] - diversity * likeness

    for at, place in enumerate(found):
        before = found[:at]
        assert place in free(before)
        best = max(value(p, before) for p in free(before))
        assert value(place, before) == pytest.approx(best)
    assert len(found) == 6 or not free(found)

"""Scores to lists: ties, what is left out, empty histories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.eval.baselines import scoring
from recsys.eval.baselines.scoring import ScoringRanker, best, slices
from recsys.schema import History
from tests.eval.baselines.made import histories, make_catalogue


class Fixed:
    """The same scores for every history, and how many were asked for at once."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.row = np.array(scores, dtype=np.float32)
        self.asked: list[int] = []

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        assert all(len(history) for history in histories)
        self.asked.append(len(histories))
        return np.tile(self.row, (len(histories), 1))


COUNTS = [1, 5, 5, 9, 0]
SCORES = [0.5, 0.5, 0.5, 0.1, 0.9]


def items_of(filter_seen: bool, history, top_k=5, excluded=(), removed=()) -> list[int]:
    ranker = ScoringRanker(Fixed(SCORES), make_catalogue(COUNTS, removed), filter_seen)
    [ranked] = ranker.rank(histories(history), [top_k], [list(excluded)])
    return ranked.item_indexes


def test_equal_scores_come_by_popularity_and_then_by_index():
    assert items_of(False, [3]) == [4, 1, 2, 0, 3]


def test_the_cut_through_equal_scores_keeps_that_order():
    assert items_of(False, [3], top_k=2) == [4, 1]
    assert items_of(False, [3], top_k=3) == [4, 1, 2]


def test_scores_go_with_their_items():
    ranker = ScoringRanker(Fixed(SCORES), make_catalogue(COUNTS), filter_seen=False)
    [ranked] = ranker.rank(histories([0]), [3], [[]])
    assert ranked.scores == pytest.approx([0.9, 0.5, 0.5])
    assert ranked.source == "model"


def test_seen_items_are_left_out_only_where_asked_for():
    assert items_of(True, [4, 1, 4]) == [2, 0, 3]
    assert items_of(False, [4, 1, 4]) == [4, 1, 2, 0, 3]


def test_excluded_and_removed_items_never_show():
    assert items_of(False, [3], excluded=[1, 4], removed=[2]) == [0, 3]
    assert items_of(True, [0], excluded=[1, 4], removed=[2]) == [3]


def test_an_empty_history_gets_popular_items_under_the_same_rules():
    ranker = ScoringRanker(Fixed(SCORES), make_catalogue(COUNTS, removed=[1]), filter_seen=True)
    ranked = ranker.rank(histories([], [3], []), [2, 9, 9], [[], [], [3]])
    assert [r.source for r in ranked] == ["popular", "model", "popular"]
    assert [r.item_indexes for r in ranked] == [[3, 2], [4, 2, 0], [2, 0, 4]]


def test_only_empty_histories_ask_for_no_scores():
    scorer = Fixed(SCORES)
    ScoringRanker(scorer, make_catalogue(COUNTS), False).rank(histories([]), [1], [[]])
    assert scorer.asked == []


def test_scores_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoring, "CELLS", 10)
    scorer = Fixed(SCORES)
    ranker = ScoringRanker(scorer, make_catalogue(COUNTS), False)
    ranked = ranker.rank(histories(*[[0]] * 5), [1] * 5, [[]] * 5)
    assert scorer.asked == [2, 2, 1]
    assert [r.item_indexes for r in ranked] == [[4]] * 5


def test_a_row_wider_than_memory_still_comes_alone():
    assert [list(part) for part in slices(range(2), scoring.CELLS + 1)] == [[0], [1]]


@settings(deadline=None)
@given(st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=1), st.integers(1, 9))
def test_the_best_are_a_stable_sort_cut_short(values: list[float], top_k: int):
    scores = np.array(values, dtype=np.float32)
    order = np.random.default_rng(len(values)).permutation(len(values))
    ranked = order[np.argsort(-scores[order], kind="stable")]
    expected = [item for item in ranked if scores[item] > -np.inf][:top_k]
    assert best(scores, order, top_k).tolist() == expected

"""Neighbourhood scores by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.eval.baselines import scoring
from recsys.eval.baselines.neighbours import ItemNeighbours, UserNeighbours
from recsys.eval.baselines.sparse import keep_largest
from tests.eval.baselines.made import histories, make_counts

COUNTS = make_counts(
    [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [1, 0, 0, 1, 0],
    ]
)
# Item columns have 3, 2, 2, 2, 0 users; pairs in common: 01: 2, 03: 1, 02: 1, 12: 1, 23: 1.
COSINES = np.zeros((5, 5))
for one, two, common, product in [
    (0, 1, 2, 6),
    (0, 2, 1, 6),
    (0, 3, 1, 6),
    (1, 2, 1, 4),
    (2, 3, 1, 4),
]:
    COSINES[one, two] = COSINES[two, one] = common / math.sqrt(product)


class TestItemNeighbours:
    def test_scores_are_sums_of_cosines_without_the_item_itself(self):
        found = ItemNeighbours(COUNTS).scores(histories([0], [0, 2], [4]))
        assert found == pytest.approx(np.stack([COSINES[0], COSINES[0] + COSINES[2], COSINES[4]]))

    def test_only_the_nearest_neighbours_of_an_item_speak(self):
        [scores] = ItemNeighbours(COUNTS, num_neighbours=1).scores(histories([0]))
        assert scores == pytest.approx([0, 2 / math.sqrt(6), 0, 0, 0])

    def test_what_is_taken_often_weighs_more_but_less_than_in_proportion(self):
        scores = ItemNeighbours(COUNTS).scores(histories([0], [0, 0, 0]))
        assert scores[1] == pytest.approx(2 * scores[0])  # log2(1 + 3) = 2


class TestUserNeighbours:
    def test_cosine_by_hand(self):
        # The history {0, 3} has cosines 1/2, 1/sqrt(6), 1/2 and 1 to the four users.
        similar = np.array([1 / 2, 1 / math.sqrt(6), 1 / 2, 1])
        [scores] = UserNeighbours(COUNTS).scores(histories([0, 3]))
        assert scores == pytest.approx(similar @ COUNTS.toarray())

    def test_pearson_is_the_correlation_over_all_items_where_it_is_positive(self):
        dense = np.array([[2, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 1, 1, 0]])
        weights = np.log2(1 + dense)
        similar = np.corrcoef(np.vstack([[1, 0, 0, 1, 0], weights]))[0, 1:].clip(0)
        assert 0 in similar
        assert similar.any()
        [scores] = UserNeighbours(make_counts(dense), similarity="pearson").scores(
            histories([0, 3])
        )
        assert scores == pytest.approx(similar @ weights)

    def test_only_the_nearest_users_speak(self):
        [scores] = UserNeighbours(COUNTS, num_neighbours=1).scores(histories([0, 3]))
        assert scores == pytest.approx([1, 0, 0, 1, 0])

    def test_a_user_who_took_everything_alike_correlates_with_nobody(self):
        everything = make_counts([[1, 1, 1], [1, 1, 0]])
        [scores] = UserNeighbours(everything, similarity="pearson").scores(histories([0]))
        assert scores == pytest.approx([0.5, 0.5, 0])

    def test_the_answer_does_not_depend_on_how_much_fits_in_memory(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        asked = histories([0], [1, 2], [3, 0])
        whole = UserNeighbours(COUNTS).scores(asked)
        monkeypatch.setattr(scoring, "CELLS", 1)
        assert UserNeighbours(COUNTS).scores(asked).tolist() == whole.tolist()


def test_the_largest_values_are_kept_and_of_equal_ones_the_first():
    matrix = make_counts([[2, 3, 2, 2, 1], [0, 0, 0, 4, 0], [0, 0, 0, 0, 0]])
    assert keep_largest(matrix, 3).toarray().tolist() == [
        [2, 3, 2, 0, 0],
        [0, 0, 0, 4, 0],
        [0, 0, 0, 0, 0],
    ]


def test_negative_values_are_not_kept():
    assert keep_largest(make_counts([[-2, 1, -3]]), 3).toarray().tolist() == [[0, 1, 0]]

"""Features of pairs by hand, and classifiers that find what matters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.eval.baselines import linear
from recsys.eval.baselines.content import ContentProfile, tfidf_vectors
from recsys.eval.baselines.linear import (
    FEATURES,
    LinearScorer,
    PairFeatures,
    fit_weights,
    training_pairs,
    without_targets,
)
from recsys.eval.baselines.neighbours import ItemNeighbours
from recsys.eval.baselines.scoring import ScoringRanker
from recsys.eval.baselines.training_matrix import TrainingMatrix, join_windows
from tests.eval.baselines.made import GROUP, histories, make_catalogue, make_rows, planted_rows

TEXTS = ["red dress", "blue dress", "red shoes", "tent"]
ROWS = make_rows([("a", [0, 1], [1, 2]), ("b", [0, 1, 2], [1, 2, 3]), ("c", [2, 3], [1, 2])])
MATRIX = join_windows(ROWS, 4)


def make_features(matrix: TrainingMatrix = MATRIX, removed=(), categories="xxy ") -> PairFeatures:
    counts = np.asarray(matrix.counts.sum(axis=0)).ravel().astype(int).tolist()
    values = [value.strip() for value in categories]  # empty is no category
    texts = [TEXTS[item % len(TEXTS)] for item in range(len(counts))]
    return PairFeatures(
        make_catalogue(counts, removed, values),
        ItemNeighbours(matrix.counts),
        ContentProfile(tfidf_vectors(texts)),
    )


class TestPairFeatures:
    @pytest.fixture
    def found(self) -> dict[str, np.ndarray]:
        """Features of the history (1, 0) and every item."""
        values = make_features().of(histories([1, 0]))
        assert values.shape == (len(FEATURES), 1, 4)
        return dict(zip(FEATURES, values[:, 0], strict=True))

    def test_popularity_is_the_log_of_events(self, found):
        assert found["popularity"] == pytest.approx(np.log([3, 3, 3, 2]))

    def test_neighbours_are_a_share_of_the_historys_best(self, found):
        # Cosines: 01 = 1, 02 = 12 = 1/2. Items 0 and 1 score 1 each, item 2 scores 1.
        assert found["neighbours"] == pytest.approx([1, 1, 1, 0])

    def test_a_category_is_shared_by_weight(self, found):
        assert found["category"] == pytest.approx([1, 1, 0, 0])
        assert not found["brand"].any()  # no item has one

    def test_recency_is_the_items_own_share_of_the_history(self, found):
        older = 0.5 ** (1 / 5)
        assert found["recency"] == pytest.approx([1 / (1 + older), older / (1 + older), 0, 0])

    def test_text_is_the_cosine_to_the_history(self, found):
        expected = ContentProfile(tfidf_vectors(TEXTS)).scores(histories([1, 0]))[0]
        assert found["text"] == pytest.approx(expected)

    def test_a_history_without_neighbours_has_no_best(self):
        alone = join_windows(make_rows([("a", [0, 0], None), ("b", [1, 2], None)]), 4)
        values = make_features(alone).of(histories([0], [3]))
        assert not values[FEATURES.index("neighbours")].any()


class TestCandidates:
    def test_they_are_the_best_of_each_source(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(linear, "NUM_CANDIDATES", 1)
        features = make_features()
        mask = features.candidates(features.of(histories([2])))
        # Popular: 0. Neighbours of 2: 3 (1/sqrt 2) before 0 and 1 (1/2). Text: 2 itself.
        assert mask.tolist() == [[True, False, True, True]]

    def test_a_removed_item_takes_no_place(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(linear, "NUM_CANDIDATES", 1)
        features = make_features(removed=[0])
        assert features.candidates(features.of(histories([2]))).tolist() == [
            [False, True, True, True]
        ]

    def test_other_items_come_after_them_by_popularity(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(linear, "NUM_CANDIDATES", 1)
        # Candidates 0, 2 and 3 are ranked against popularity; 1 is none and still comes last.
        scorer = LinearScorer(make_features(), -np.eye(len(FEATURES), dtype=np.float32)[0])
        ranker = ScoringRanker(scorer, make_catalogue([2, 2, 2, 1]), filter_seen=False)
        [ranked] = ranker.rank(histories([2]), [4], [[]])
        assert ranked.item_indexes == [3, 0, 2, 1]


class TestTrainingPairs:
    def test_the_last_event_is_the_target_and_candidates_are_the_negatives(self):
        pairs, labels = training_pairs(MATRIX, make_features())
        # Every item is a candidate: three windows with one target and three negatives each.
        assert labels.tolist() == [True, False, False, False] * 3
        popularity = np.exp(pairs[:, FEATURES.index("popularity")]) - 1
        assert popularity[labels] == pytest.approx([2, 2, 1])  # items 1, 2 and 3

    def test_the_targets_are_not_in_the_histories(self):
        pairs, labels = training_pairs(MATRIX, make_features())
        assert not pairs[labels, FEATURES.index("recency")].any()

    def test_neighbours_are_unaware_of_the_targets(self):
        left = without_targets(MATRIX).toarray()
        assert left.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]

    def test_a_target_that_was_taken_before_still_counts_as_before(self):
        matrix = join_windows(make_rows([("a", [0, 1, 0], None)]), 2)
        assert without_targets(matrix).toarray().tolist() == [[1, 1]]


class TestClassifiers:
    NUM_ITEMS = 2 * GROUP

    @pytest.fixture(params=["logistic", "linear_svm"])
    def kind(self, request: pytest.FixtureRequest) -> str:
        return request.param

    def test_they_find_the_feature_that_tells(self, kind):
        random = np.random.default_rng(0)
        pairs = random.normal(size=(400, len(FEATURES))).astype(np.float32)
        pairs[:, 1] *= 100  # a feature's unit does not matter
        weights = fit_weights(kind, pairs, pairs[:, 1] + 20 * pairs[:, 2] > 0)
        assert weights[1] > 0
        assert weights[2] / weights[1] == pytest.approx(20, rel=0.2)
        assert math.isfinite(weights.sum())

    def test_new_users_get_the_items_of_their_group(self, kind, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(linear, "NUM_CANDIDATES", GROUP)
        matrix = join_windows(planted_rows(), self.NUM_ITEMS)
        features = make_features(matrix, categories=" " * self.NUM_ITEMS)
        weights = fit_weights(kind, *training_pairs(matrix, features))
        counts = np.asarray(matrix.counts.sum(axis=0)).ravel().astype(int).tolist()
        ranker = ScoringRanker(LinearScorer(features, weights), make_catalogue(counts), True)
        ranked = ranker.rank(histories([0, 1, 2], [13, 12]), [7, 7], [[], []])
        assert [{item // GROUP for item in r.item_indexes} for r in ranked] == [{0}, {1}]

    def test_the_same_rows_give_the_same_weights(self, kind):
        matrix = join_windows(planted_rows(), self.NUM_ITEMS)
        features = make_features(matrix, categories=" " * self.NUM_ITEMS)
        first, second = (fit_weights(kind, *training_pairs(matrix, features)) for _ in range(2))
        assert first.tolist() == second.tolist()

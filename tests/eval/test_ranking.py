"""Scores of rankers over held-out rows, by hand."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from recsys.config import EvaluationConfig
from recsys.engine.recommender import Ranked
from recsys.eval.ranking import score_rankers
from recsys.eval.segments import HeldOut, Labels
from recsys.metrics import NO_ITEM
from recsys.schema import History

COUNTS = np.array([5, 4, 0, 6, 3, 2, 0])  # head 0 3, tail 1 4 5, cold 2 6


class Fixed:
    """Ranks every row as it is told, in the order of the rows."""

    def __init__(self, lists: list[list[int]]) -> None:
        self._lists, self._next = lists, 0

    def rank(self, histories, top_k, excluded) -> list[Ranked]:
        start = self._next % len(self._lists)
        self._next = start + len(histories)
        some = self._lists[start : self._next]
        return [Ranked(r[:k], [0.0] * k, "model") for r, k in zip(some, top_k, strict=True)]


class TestScoreRankers:
    LISTS = [
        [0, 1, 2],  # row 0 wants 0 and 2: ranks 1 and 3
        [4, 5, 3],  # row 1 wants 3: rank 3
        [6, 0],  # row 2 wants 1: missed
    ]
    HELD_OUT = HeldOut(
        histories=[History.of_items([]), History.of_items([1, 4]), History.of_items([5])],
        targets=[np.array([0, 2]), np.array([3]), np.array([1])],
        train_counts=COUNTS,
        user_labels={"country": Labels.of(pa.array(["A", "B", "A"]))},
    )

    @pytest.fixture
    def scored(self):
        popular = Fixed([np.argsort(-COUNTS, kind="stable").tolist()] * 3)
        rankers = {"model": Fixed(self.LISTS), "popularity": popular}
        config = EvaluationConfig(cutoffs=(1, 3), batch_size=2)
        vectors = np.eye(7)
        return score_rankers(rankers, self.HELD_OUT, config, lambda items: vectors[items])

    @pytest.fixture
    def scores(self, scored) -> dict[str, dict[str, float]]:
        return scored.means["model"]

    def test_segments_and_their_users(self, scores):
        assert {name: values["users"] for name, values in scores.items()} == {
            **{"all": 3, "history:0": 1, "history:1-4": 2},
            **{"items:head": 2, "items:tail": 1, "items:cold": 1},
            **{"user:country=A": 2, "user:country=B": 1},
        }

    def test_all_by_hand(self, scores):
        found = scores["all"]
        assert found["recall@1"] == pytest.approx((1 / 2 + 0 + 0) / 3)
        assert found["recall@3"] == pytest.approx((1 + 1 + 0) / 3)
        assert found["hit_rate@1"] == pytest.approx(1 / 3)
        assert found["hit_rate@3"] == pytest.approx(2 / 3)
        assert found["mrr@3"] == pytest.approx((1 + 1 / 3 + 0) / 3)
        assert found["precision@3"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
        assert found["map@3"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 3)
        both = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
        assert found["ndcg@3"] == pytest.approx((both + 1 / math.log2(4)) / 3)
        assert found["coverage@1"] == pytest.approx(3 / 7)  # items 0, 4, 6
        assert found["coverage@3"] == pytest.approx(7 / 7)

    def test_lists_by_hand(self, scores):
        found = scores["all"]
        assert found["diversity@10"] == pytest.approx(1.0)  # each item has a direction of its own
        assert found["serendipity@10"] == 0.0  # popularity's ten are the whole catalogue
        # Fourteenths, of items 0 to 6: 11 9 2 13 7 5 2.
        assert found["popularity@10"] * 14 == pytest.approx((22 / 3 + 25 / 3 + 13 / 2) / 3)
        assert found["popularity_lift@10"] * 14 == pytest.approx((25 / 3 - 8 + 13 / 2 - 5) / 2)

    def test_ten_is_always_among_the_cutoffs(self, scores):
        assert scores["all"]["recall@10"] == scores["all"]["recall@3"]

    def test_item_segments_look_for_their_own_targets_only(self, scores):
        # Head: row 0 for item 0 (rank 1), row 1 for item 3 (rank 3). Cold: row 0 for item 2.
        assert scores["items:head"]["recall@1"] == pytest.approx(1 / 2)
        assert scores["items:head"]["mrr@3"] == pytest.approx((1 + 1 / 3) / 2)
        assert scores["items:cold"]["mrr@3"] == pytest.approx(1 / 3)
        assert scores["items:cold"]["recall@1"] == 0.0
        assert scores["items:tail"]["recall@3"] == 0.0

    def test_history_and_user_segments_by_hand(self, scores):
        assert scores["history:0"]["recall@3"] == 1.0
        assert scores["history:1-4"]["recall@3"] == pytest.approx(1 / 2)
        assert scores["user:country=A"]["recall@3"] == pytest.approx(1 / 2)
        assert scores["user:country=B"]["recall@3"] == 1.0

    def test_lists_are_described_as_a_whole_only(self, scores):
        with_lists = [name for name, row in scores.items() if "gini@10" in row]
        assert with_lists == ["all"]

    def test_the_models_lists_are_kept_to_be_shown(self, scored):
        assert scored.trained[:, :3].tolist() == [[0, 1, 2], [4, 5, 3], [6, 0, NO_ITEM]]

    def test_rows_have_the_values_whose_mean_is_told(self, scored):
        for model, of_model in scored.means.items():
            at = scored.rows.models.index(model)
            for segment, means in of_model.items():
                rows = scored.rows.of(segment)[:, at]
                assert rows.mean(axis=0) == pytest.approx(
                    [means["recall@10"], means["ndcg@10"], means["mrr@10"]], rel=1e-6
                )

import math

import numpy as np
import pytest
import torch

from recsys.config import ModelConfig
from recsys.eval.baselines import Popularity, id_only_config
from recsys.eval.evaluate import NO_ITEM, HeldOut, score_segments
from recsys.eval.segments import HISTORY_BOUNDS, item_kinds, segments
from recsys.schema import History


def kinds_of(counts: list[int]) -> dict[str, list[int]]:
    masks = item_kinds(np.array(counts))
    assert list(masks) == ["head", "tail", "cold"]
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


class TestItemKinds:
    def test_head_takes_half_of_the_events(self):
        # 20 events: item 3 has 6, item 0 has 5, together 11 >= 10; no smaller head does.
        assert kinds_of([5, 4, 0, 6, 3, 2, 0]) == {
            "head": [0, 3],
            "tail": [1, 4, 5],
            "cold": [2, 6],
        }

    def test_exactly_half_is_enough(self):
        assert kinds_of([5, 3, 2]) == {"head": [0], "tail": [1, 2], "cold": []}

    def test_just_under_half_is_not(self):
        assert kinds_of([4, 3, 2]) == {"head": [0, 1], "tail": [2], "cold": []}

    def test_equal_items_are_taken_in_index_order(self):
        assert kinds_of([1, 1, 1, 1, 0]) == {"head": [0, 1], "tail": [2, 3], "cold": [4]}

    def test_one_item_is_head(self):
        assert kinds_of([7]) == {"head": [0], "tail": [], "cold": []}

    def test_a_catalogue_without_events_is_cold(self):
        assert kinds_of([0, 0]) == {"head": [], "tail": [], "cold": [0, 1]}

    def test_every_item_is_of_one_kind(self):
        random = np.random.default_rng(0)
        masks = item_kinds(random.integers(0, 5, 200))
        assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()


COUNTS = np.array([5, 4, 0, 6, 3, 2, 0])  # head 0 3, tail 1 4 5, cold 2 6
LENGTHS = np.array([0, 1, 4, 5, 19, 20, 300])
TARGETS = [
    np.array(row) for row in ([0, 1, 2], [3], [4, 5], [2], [0, 3], [6, 1], [5])
]  # each row's relevant items


class TestSegments:
    def found(self, lengths=LENGTHS, targets=TARGETS) -> dict[str, tuple[list, list]]:
        return {
            name: (rows.tolist(), [row.tolist() for row in part])
            for name, rows, part in segments(lengths, targets, COUNTS)
        }

    def test_all_is_everything(self):
        assert self.found()["all"] == ([*range(7)], [row.tolist() for row in TARGETS])

    def test_history_lengths_with_both_ends(self):
        found = self.found()
        assert found["history:0"] == ([0], [[0, 1, 2]])
        assert found["history:1-4"] == ([1, 2], [[3], [4, 5]])
        assert found["history:5-19"] == ([3, 4], [[2], [0, 3]])
        assert found["history:20+"] == ([5, 6], [[6, 1], [5]])

    def test_item_kinds_look_at_part_of_a_rows_targets(self):
        found = self.found()
        assert found["items:head"] == ([0, 1, 4], [[0], [3], [0, 3]])
        assert found["items:tail"] == ([0, 2, 5, 6], [[1], [4, 5], [1], [5]])
        assert found["items:cold"] == ([0, 3, 5], [[2], [2], [6]])

    def test_order_of_the_names(self):
        assert list(self.found()) == [
            *("all", "history:0", "history:1-4", "history:5-19", "history:20+"),
            *("items:head", "items:tail", "items:cold"),
        ]

    def test_empty_segments_are_left_out(self):
        found = self.found(np.array([3, 2]), [np.array([3]), np.array([0])])
        assert list(found) == ["all", "history:1-4", "items:head"]

    def test_every_length_is_in_exactly_one_bound(self):
        for length in range(50):
            inside = [
                low <= length and (high is None or length <= high) for low, high in HISTORY_BOUNDS
            ]
            assert sum(inside) == 1


class TestScoreSegments:
    RANKED = np.array(
        [
            [0, 1, 2],  # row 0 wants 0 and 2: ranks 1 and 3
            [4, 5, 3],  # row 1 wants 3: rank 3
            [6, 0, NO_ITEM],  # row 2 wants 1: missed
        ]
    )
    HELD_OUT = HeldOut(
        histories=[History.of_items([]), History.of_items([1, 4]), History.of_items([5])],
        targets=[np.array([0, 2]), np.array([3]), np.array([1])],
        train_counts=COUNTS,
    )

    @pytest.fixture
    def scores(self) -> dict[str, dict[str, float]]:
        return score_segments(self.RANKED, self.HELD_OUT, (1, 3))

    def test_segments_and_their_users(self, scores):
        assert {name: values["users"] for name, values in scores.items()} == {
            **{"all": 3, "history:0": 1, "history:1-4": 2},
            **{"items:head": 2, "items:tail": 1, "items:cold": 1},
        }

    def test_all_by_hand(self, scores):
        found = scores["all"]
        assert found["recall@1"] == pytest.approx((1 / 2 + 0 + 0) / 3)
        assert found["recall@3"] == pytest.approx((1 + 1 + 0) / 3)
        assert found["hit_rate@1"] == pytest.approx(1 / 3)
        assert found["hit_rate@3"] == pytest.approx(2 / 3)
        assert found["mrr@3"] == pytest.approx((1 + 1 / 3 + 0) / 3)
        both = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
        assert found["ndcg@3"] == pytest.approx((both + 1 / math.log2(4)) / 3)
        assert found["coverage@1"] == pytest.approx(3 / 7)  # items 0, 4, 6
        assert found["coverage@3"] == pytest.approx(7 / 7)

    def test_item_segments_look_for_their_own_targets_only(self, scores):
        # Head: row 0 for item 0 (rank 1), row 1 for item 3 (rank 3). Cold: row 0 for item 2.
        assert scores["items:head"]["recall@1"] == pytest.approx(1 / 2)
        assert scores["items:head"]["mrr@3"] == pytest.approx((1 + 1 / 3) / 2)
        assert scores["items:cold"]["mrr@3"] == pytest.approx(1 / 3)
        assert scores["items:cold"]["recall@1"] == 0.0
        assert scores["items:tail"]["recall@3"] == 0.0

    def test_history_segments_by_hand(self, scores):
        assert scores["history:0"]["recall@3"] == 1.0
        assert scores["history:1-4"]["recall@3"] == pytest.approx(1 / 2)

    def test_coverage_is_of_the_whole_only(self, scores):
        with_coverage = [
            name for name, row in scores.items() if any(k.startswith("coverage") for k in row)
        ]
        assert with_coverage == ["all"]


class TestPopularity:
    COUNTS = torch.tensor([5, 9, 0, 9, 2])  # order 1 3 0 4 2
    HISTORIES = [History.of_items([1, 4]), History.of_items([]), History.of_items([3, 3, 0])]

    def rank(self, filter_seen: bool, top_k: list[int], excluded: list[list[int]]):
        ranker = Popularity(self.COUNTS, filter_seen)
        return ranker.rank(self.HISTORIES, top_k, excluded)

    def test_the_same_items_for_everyone(self):
        ranked = self.rank(False, [5, 5, 5], [[], [], []])
        assert [r.item_indexes for r in ranked] == [[1, 3, 0, 4, 2]] * 3
        assert ranked[0].scores == pytest.approx([9 / 25, 9 / 25, 5 / 25, 2 / 25, 0])
        assert {r.source for r in ranked} == {"popular"}

    def test_seen_items_are_left_out_where_asked_for(self):
        ranked = self.rank(True, [5, 5, 5], [[], [], []])
        assert [r.item_indexes for r in ranked] == [[3, 0, 2], [1, 3, 0, 4, 2], [1, 4, 2]]

    def test_top_k_is_filled_up_behind_seen_items(self):
        ranked = self.rank(True, [2, 1, 2], [[], [], []])
        assert [r.item_indexes for r in ranked] == [[3, 0], [1], [1, 4]]

    @pytest.mark.parametrize(
        ("filter_seen", "expected"),
        [(False, [[1, 0], [3, 0], [1, 3]]), (True, [[0, 2], [3, 0], [1, 4]])],
    )
    def test_excluded_items_are_left_out_too(self, filter_seen, expected):
        ranked = self.rank(filter_seen, [2, 2, 2], [[3], [1], []])
        assert [r.item_indexes for r in ranked] == expected


def test_the_id_only_baseline_is_the_same_model_without_text():
    told = ModelConfig(tuning="lora", embedding_size=64, num_layers=3, dropout=0.1)
    baseline = id_only_config(told)
    assert (baseline.item_features, baseline.tuning) == ("id", "frozen")
    differing = {"item_features", "tuning"}
    assert baseline.model_dump(exclude=differing) == told.model_dump(exclude=differing)
    ModelConfig.model_validate(baseline.model_dump())

"""What moves recommendations: shares by hand, rules that are as good as they say, the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.artifact import Artifact
from recsys.config import EvaluationConfig
from recsys.data.collate import histories_of
from recsys.engine.catalogue import Catalogue
from recsys.eval.explain import explain
from recsys.eval.explain_page import render_explanations
from recsys.eval.feature_importance import (
    FEATURES,
    MIN_USERS,
    OTHERS,
    Sample,
    contribution_shares,
    draw_sample,
    features_of,
    fit_surrogate,
)
from recsys.eval.transfer import transfer_checkpoint
from recsys.schema import History
from tests.engine.test_recommender import NUM_ITEMS, make_recommender
from tests.eval.test_transfer import make_checkpoint, make_dataset, make_index
from tests.html_page import Page

SMALL = Catalogue(
    pa.table(
        {
            "item_id": ["a", "b", "c", "d"],
            "title": ["A", "B", "C", "D"],
            "category": ["x", "x", "y", None],
            "brand": [None, None, "z", "z"],
            "price": [10.0, 30.0, None, 40.0],
            "train_count": [5, 0, 2, 1],
            "removed": [False] * 4,
        }
    )
)
A, B, C, D = range(4)


def history(items: list[int], events: list[int] | None = None) -> History:
    told = History.of_items(items)
    return History(told.item_indexes, told.timestamps, np.array(events or [0] * len(items)))


class TestShares:
    SAMPLE = Sample(
        [history([A, C], [0, 1]), history([B], [1])],
        [[B, D], [A]],
        [np.array([[0.3, -0.5], [0.1, 0.2]]), np.array([[0.4]])],
    )

    def shares(self, min_users: int = 1) -> dict:
        return contribution_shares(self.SAMPLE, SMALL, ["view", "cart"], min_users)

    def test_by_hand(self):
        # Pairs: A-B 0.3, A-D below 0, C-B 0.1, C-D 0.2, B-A 0.4; 1.0 in all, 5 pairs.
        found = self.shares()
        assert found["recency"] == {
            "newest": pytest.approx({"contribution": 0.7, "events": 3 / 5}),
            "second newest": pytest.approx({"contribution": 0.3, "events": 2 / 5}),
        }
        assert found["event"] == {
            "view": pytest.approx({"contribution": 0.3, "events": 2 / 5}),
            "cart": pytest.approx({"contribution": 0.7, "events": 3 / 5}),
        }
        assert found["category"] == {
            "the same": pytest.approx({"contribution": 0.7, "events": 2 / 5}),
            "another": pytest.approx({"contribution": 0.1, "events": 1 / 5}),
            "unknown": pytest.approx({"contribution": 0.2, "events": 2 / 5}),
        }
        assert found["brand"] == {
            "the same": pytest.approx({"contribution": 0.2, "events": 1 / 5}),
            "unknown": pytest.approx({"contribution": 0.8, "events": 4 / 5}),
        }

    def test_a_group_of_few_users_is_not_told_alone(self):
        found = self.shares(min_users=2)
        assert set(found["recency"]) == {"newest", "other"}
        assert found["recency"]["other"] == pytest.approx({"contribution": 0.3, "events": 2 / 5})
        assert set(found["event"]) == {"cart", "other"}

    def test_every_event_is_in_one_group_of_each_kind(self):
        items = np.arange(30) % 4
        sample = Sample([history(items.tolist())], [[A, B]], [np.ones((30, 2))])
        for groups in contribution_shares(sample, SMALL, ["view"], 1).values():
            for told in ("contribution", "events"):
                assert sum(group[told] for group in groups.values()) == pytest.approx(1.0)

    def test_the_places_of_recency(self):
        sample = Sample([history([A] * 12)], [[B]], [np.ones((12, 1))])
        found = contribution_shares(sample, SMALL, ["view"], 1)["recency"]
        counts = {name: round(12 * share["events"]) for name, share in found.items()}
        expected = {"newest": 1, "second newest": 1, "3 to 5": 3, "6 to 10": 5, "older": 2}
        assert counts == expected

    def test_nothing_raised_anything(self):
        sample = Sample([history([A])], [[B]], [np.array([[-0.1]])])
        found = contribution_shares(sample, SMALL, ["view"], 1)
        assert found["recency"] == {"newest": {"contribution": 0.0, "events": 1.0}}


VECTORS = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])


class TestFeatures:
    def test_by_hand(self):
        seen = history([A, B, C])
        found = features_of(seen, np.array([A, D]), SMALL, lambda items: VECTORS[items])
        by_name = dict(zip(FEATURES, found.T.tolist(), strict=True))
        assert by_name["cosine_to_last"] == [0.0, 0.0]
        assert by_name["category_share"] == pytest.approx([2 / 3, 0.0])
        assert by_name["brand_share"] == pytest.approx([0.0, 1 / 3])
        assert by_name["train_events"] == [5.0, 1.0]
        assert by_name["seen_before"] == [1.0, 0.0]
        assert by_name["price_ratio"] == [10 / 20, 40 / 20]

    def test_the_last_event_is_the_newest(self):
        found = features_of(history([A, B]), np.array([A, C]), SMALL, lambda items: VECTORS[items])
        assert found[:, 0].tolist() == [0.6, 0.8]

    @pytest.mark.parametrize("seen", [[C], [C, C]])
    def test_without_a_known_price_ratios_are_one(self, seen):
        found = features_of(history(seen), np.array([A, C]), SMALL, lambda items: VECTORS[items])
        assert found[:, -1].tolist() == [1.0, 1.0]


NUM_MANY, NUM_USERS, PER_CATEGORY = 200, 60, 20
MANY = Catalogue(
    pa.table(
        {
            "item_id": [str(item) for item in range(NUM_MANY)],
            "title": pa.nulls(NUM_MANY, pa.string()),
            "category": [f"c{item // PER_CATEGORY}" for item in range(NUM_MANY)],
            "train_count": [1] * NUM_MANY,
            "removed": [False] * NUM_MANY,
        }
    )
)


def many(same_category: bool, num_users: int = NUM_USERS) -> Sample:
    """Users of one category each, who are recommended items of it, or any."""
    rng = np.random.default_rng(0)
    histories, recommended = [], []
    for _ in range(num_users):
        start = rng.integers(NUM_MANY // PER_CATEGORY) * PER_CATEGORY
        inside = start + rng.permutation(PER_CATEGORY)
        histories.append(history(inside[:5].tolist()))
        anywhere = rng.permutation(NUM_MANY)[:10]
        recommended.append((inside[5:15] if same_category else anywhere).tolist())
    return Sample(histories, recommended, [np.ones((5, 10))] * num_users)


def same_vectors(items: np.ndarray) -> np.ndarray:
    return np.ones((len(items), 1))


class TestSurrogate:
    def test_rules_find_what_the_recommender_goes_by(self):
        found = fit_surrogate(many(same_category=True), MANY, same_vectors)
        assert found is not None
        assert found.auc > 0.95
        assert found.r2 > 0.7
        assert max(found.importance, key=lambda name: found.importance[name]) == "category_share"
        assert "category_share" in found.rules
        assert (found.num_fitted, found.num_scored) == (42, 18)

    def test_rules_that_know_nothing_are_told_to_be_no_better_than_chance(self):
        found = fit_surrogate(many(same_category=False), MANY, same_vectors)
        assert found is not None
        assert found.auc == pytest.approx(0.5, abs=0.06)
        assert found.r2 < 0.05

    def test_it_is_judged_on_users_it_was_not_fitted_to(self):
        """Rules fitted to what is only noise do not look good: no user is on both sides."""
        rng = np.random.default_rng(1)
        table = rng.normal(size=(NUM_MANY, 8))
        vectors = table / np.linalg.norm(table, axis=1, keepdims=True)
        found = fit_surrogate(many(False, num_users=12), MANY, lambda items: vectors[items])
        assert found is not None
        assert found.auc < 0.6
        assert found.r2 < 0

    def test_the_same_sample_makes_the_same_rules(self):
        sample = many(same_category=True)
        assert fit_surrogate(sample, MANY, same_vectors) == fit_surrogate(
            sample, MANY, same_vectors
        )

    def test_too_few_users_make_no_rules(self):
        assert fit_surrogate(many(True, MIN_USERS - 1), MANY, same_vectors) is None
        assert fit_surrogate(many(True, MIN_USERS), MANY, same_vectors) is not None

    def test_recommended_items_are_never_among_the_others(self):
        """Of 200 items 10 are recommended and 40 drawn: with all 190 drawn none comes twice."""
        assert OTHERS < NUM_MANY - 10
        sample = Sample(
            [history([A])] * MIN_USERS, [[B, C]] * MIN_USERS, [np.ones((1, 2))] * MIN_USERS
        )
        found = fit_surrogate(sample, SMALL, lambda items: VECTORS[items])
        assert found is not None
        assert found.auc == 1.0  # 2 of 4 items, each either always or never recommended


def held_out(users: list[str], items: list[list[int]]) -> pa.Table:
    return pa.table(
        {
            "user_id": users,
            "item_indexes": pa.array(items, pa.list_(pa.int32())),
            "timestamps": pa.array([[-1] * len(row) for row in items], pa.list_(pa.int64())),
            "events": pa.array([[0] * len(row) for row in items], pa.list_(pa.int8())),
        }
    )


class TestSample:
    ROWS = held_out(["u1", "u2", "u1", "u3"], [[1, 2], [], [3], [0, 1, 2, 3, 4, 5]])

    def test_one_row_a_user_as_the_model_sees_it(self):
        sample = draw_sample(self.ROWS, make_recommender(), 10)
        assert [h.item_indexes.tolist() for h in sample.histories] == [[1, 2], [2, 3, 4, 5]]
        assert [m.shape for m in sample.moved] == [(2, NUM_ITEMS), (4, NUM_ITEMS)]
        (ranked, _) = make_recommender().rank(
            [histories_of(self.ROWS)[0], histories_of(self.ROWS)[3]], [10, 10], [[], []]
        )
        assert sample.recommended[0] == ranked.item_indexes

    def test_no_more_users_than_asked_for_and_the_same_ones_again(self):
        rows = held_out([f"u{n}" for n in range(50)], [[n % NUM_ITEMS] for n in range(50)])
        first, again = (draw_sample(rows, make_recommender(), 7) for _ in range(2))
        assert len(first.histories) == 7
        assert [h.item_indexes.tolist() for h in first.histories] == [
            h.item_indexes.tolist() for h in again.histories
        ]

    def test_without_any_history_there_is_nothing_to_explain(self):
        with pytest.raises(ValueError, match="no held-out row has a history"):
            draw_sample(held_out(["u1"], [[]]), make_recommender(), 5)


class TestStage:
    @pytest.fixture
    def parents(self, tiny_backbone, tmp_path: Path) -> list[Artifact]:
        dataset = make_dataset(tiny_backbone, tmp_path / "dataset")
        source = make_checkpoint(tiny_backbone, tmp_path)
        checkpoint = transfer_checkpoint(source, dataset, str(tmp_path / "moved"))
        return [dataset, checkpoint, make_index(checkpoint, dataset, tmp_path / "index")]

    def test_the_artifact_is_whole_and_names_nobody(self, parents, tmp_path):
        artifact = explain(EvaluationConfig(), *parents, str(tmp_path / "explanations"))
        artifact.check_files()
        assert set(artifact.manifest.parents) == {"dataset", "checkpoint", "index"}
        told = artifact.read_json("explanations.json")
        assert told["num_users"] == 2
        assert told["surrogate"] is None
        assert all(e["recommended"][0]["sentence"] for e in told["examples"])
        for name in artifact.names():
            text = artifact.read_bytes(name).decode()
            assert "u1" not in text
            assert "u2" not in text

    def test_artifacts_of_another_dataset_are_refused(self, parents, tiny_backbone, tmp_path):
        other = make_dataset(tiny_backbone, tmp_path / "other", ["view", "cart", "wish", "sold"])
        with pytest.raises(ValueError, match="was not made from"):
            explain(EvaluationConfig(), other, *parents[1:], str(tmp_path / "explanations"))
        assert not (tmp_path / "explanations").exists()


ATTACK = "<script>alert('x')</script>"


class TestPage:
    REPORT = {
        "num_users": 1234,
        "shares": {"event": {ATTACK: {"contribution": 0.75, "events": 0.25}}},
        "surrogate": {
            "rules": "|--- cosine_to_last <= 0.5",
            "importance": {"cosine_to_last": 0.9, "seen_before": 0.1},
            **{"auc": 0.91, "r2": 0.4, "num_fitted": 70, "num_scored": 30},
        },
        "examples": [
            {
                "history": ["锤子", ATTACK],
                "recommended": [{"title": "Saw", "sentence": 'Because of "锤子".'}],
            }
        ],
    }

    def page(self, **changes) -> Page:
        return Page(render_explanations(self.REPORT | changes))

    def test_it_says_what_the_report_says(self):
        text = self.page().text
        for said in ("1,234 users", "75.0%", "25.0%", "AUC 0.910", "R2 0.400", "30 users", "锤子"):
            assert said in text
        assert "|--- cosine_to_last <= 0.5" in text
        assert 'Because of "锤子".' in text

    def test_names_are_text_and_nothing_is_loaded(self):
        page = self.page()
        assert "script" not in page.tags
        assert ATTACK in page.text
        assert not [v for name, v in page.attributes if name in ("src", "href")]

    def test_rules_like_chance_come_with_a_warning(self):
        weak = self.REPORT["surrogate"] | {"auc": 0.6}
        assert "too unlike the model" in self.page(surrogate=weak).text
        assert "too unlike the model" not in self.page().text

    def test_without_rules_it_says_why(self):
        assert "Too few users" in self.page(surrogate=None).text

"""Scores of values and probabilities against scikit-learn and by hand; heads on held-out rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, mean_absolute_error, root_mean_squared_error

from recsys.config import ModelConfig
from recsys.eval.predictions import (
    NUM_BINS,
    HeldOutTargets,
    evaluate_heads,
    expected_calibration_error,
    probability_scores,
    rating_scores,
)
from recsys.models.build import ModelShape, add_heads, build_model
from recsys.models.heads import ITEM_PRIOR, NUM_NEGATIVES, USER_PRIOR, ValueFacts
from recsys.models.item_encoder import ItemInputs
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History

NAN = float("nan")
COUNTS = torch.tensor([40, 20, 10, 5, 5, 0])
CONFIG = ModelConfig(item_features="id", embedding_size=8, num_layers=1, num_heads=2)
SHAPE = ModelShape(num_items=6, max_history=4, num_events=1, text_size=0)


def history(items: list[int], values: list[float] | None = None) -> History:
    plain = History.of_items(items)
    return plain if values is None else replace(plain, values=np.array(values, np.float32))


HELD_OUT = HeldOutTargets(
    [history([0, 1], [5, NAN]), history([], []), history([2], [1]), history([3, 4, 5], [2, 2, 2])],
    [np.array([2]), np.array([3]), np.array([0, 1]), np.array([1])],
    [np.array([4.0]), np.array([1.0]), np.array([NAN, 2.0]), np.array([3.0])],
)


@pytest.fixture
def model() -> RecommenderModel:
    torch.manual_seed(0)
    made = build_model(CONFIG, SHAPE).eval()
    add_heads(made, ("rating", "probability"), CONFIG, SHAPE)
    offsets = torch.arange(6) / ITEM_PRIOR
    made.heads.rating.set_facts(ValueFacts(3.0, 1.0, offsets))
    made.heads.probability.item_counts.copy_(COUNTS)
    return made


def judge(model: RecommenderModel, held_out: HeldOutTargets = HELD_OUT, **options) -> dict:
    with torch.no_grad():
        vectors = model.encode_items(ItemInputs(torch.arange(6)))
    return evaluate_heads(model, vectors, held_out, max_history=4, **options)


class TestScores:
    def test_of_values_are_those_of_scikit_learn(self):
        random = np.random.default_rng(0)
        truth, predicted = random.normal(size=50), random.normal(size=50)
        found = rating_scores(truth, predicted)
        assert found["mae"] == pytest.approx(mean_absolute_error(truth, predicted))
        assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted))
        assert found["mse"] == pytest.approx(found["rmse"] ** 2)

    def test_of_probabilities_by_hand(self):
        truth, predicted = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.4, 0.6])
        found = probability_scores(truth, predicted)
        assert found["auc"] == 0.75  # three of four pairs are in order
        assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.36) / 4)
        assert found["brier"] == pytest.approx(brier_score_loss(truth, predicted))
        assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.4]).mean())

    def test_calibration_error_by_hand(self):
        truth = np.array([0.0, 1.0, 1.0, 1.0])
        predicted = np.array([0.1, 0.3, 0.6, 0.9])
        # Two bins: means .2 against .5, and .75 against 1.
        assert expected_calibration_error(truth, predicted, 2) == pytest.approx(
            (2 * 0.3 + 2 * 0.25) / 4
        )

    @settings(max_examples=50, deadline=None)
    @given(
        rows=st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.25, 0.5, 0.9])), min_size=1),
        seed=st.integers(0, 99),
    )
    def test_calibration_error_does_not_depend_on_the_order_of_rows(self, rows, seed):
        truth, predicted = (np.array(column, float) for column in zip(*rows, strict=True))
        order = np.random.default_rng(seed).permutation(len(rows))
        assert expected_calibration_error(truth[order], predicted[order]) == pytest.approx(
            expected_calibration_error(truth, predicted)
        )

    def test_calibration_error_of_true_probabilities_is_small_and_of_bold_ones_large(self):
        random = np.random.default_rng(0)
        predicted = random.random(20_000)
        truth = (random.random(20_000) < predicted).astype(float)
        bold = np.where(predicted > 0.5, 0.99, 0.01)
        assert expected_calibration_error(truth, predicted, NUM_BINS) < 0.02
        assert expected_calibration_error(truth, bold, NUM_BINS) > 0.2


class TestEvaluateHeads:
    def test_baselines_of_values_by_hand(self, model):
        found = judge(model)["rating"]
        # Known values with a history: 4 of item 2, 2 of item 1, 3 of item 1.
        assert found["mean"]["mse"] == pytest.approx((1 + 1 + 0) / 3)
        assert found["mean"]["predictions"] == 3
        users = [2 / (1 + USER_PRIOR)]
        users += [(-2 - 2 / ITEM_PRIOR) / (1 + USER_PRIOR)]
        users += [(-3 - 12 / ITEM_PRIOR) / (3 + USER_PRIOR)]
        said = [3 + user + item / ITEM_PRIOR for user, item in zip(users, (2, 1, 1), strict=True)]
        expected = np.mean(np.square(np.array(said) - [4, 2, 3]))
        assert found["user_item_bias"]["mse"] == pytest.approx(expected, rel=1e-5)

    def test_an_untrained_head_is_its_baseline(self, model):
        found = judge(model)
        assert found["rating"]["model"] == pytest.approx(found["rating"]["user_item_bias"])
        assert found["probability"]["model"]["auc"] == 0.5

    def test_values_that_a_head_knows_exactly_have_no_error(self, model):
        model.heads.rating.set_facts(ValueFacts(3.0, 1.0, torch.zeros(6)))
        threes = replace(HELD_OUT, values=[np.full(len(t), 3.0) for t in HELD_OUT.targets])
        threes.histories[2].values[:] = NAN
        found = judge(
            model,
            replace(
                threes,
                histories=threes.histories[2:3],
                targets=threes.targets[2:3],
                values=threes.values[2:3],
            ),
        )
        assert found["rating"]["model"]["mae"] == 0

    def test_popularity_is_the_true_probability_where_items_are_drawn_by_it(self, model):
        items = np.repeat(np.arange(6), 40 * COUNTS.numpy())
        one = [history([0])] * len(items)
        found = judge(model, HeldOutTargets(one, [np.array([item]) for item in items]))
        assert "rating" not in found
        popular = found["probability"]["popularity"]
        assert popular["ece"] < 0.02
        assert popular["auc"] > 0.7
        assert popular["log_loss"] < found["probability"]["model"]["log_loss"]

    def test_one_seed_draws_the_same_negatives_whatever_else(self, model):
        torch.nn.init.normal_(model.heads.probability.network[0].weight)
        torch.nn.init.normal_(model.heads.probability.network[2].weight)
        first, again, other = (judge(model, seed=seed)["probability"] for seed in (1, 1, 2))
        assert first == again
        assert first != other
        assert first["model"]["predictions"] <= 4 * (1 + NUM_NEGATIVES)

    def test_the_calibration_is_applied(self, model):
        plain = judge(model)["probability"]["model"]
        model.heads.probability.calibration.copy_(torch.tensor([1.0, 3.0]))
        bold = judge(model)["probability"]["model"]
        assert bold["log_loss"] > plain["log_loss"] + 0.5

    def test_a_model_without_heads_or_rows_has_nothing_to_judge(self, model):
        assert judge(model, HeldOutTargets([history([])], [np.array([1])])) == {}
        model.heads = None
        assert judge(model) == {}

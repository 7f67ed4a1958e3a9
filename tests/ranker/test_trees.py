"""Lists in the order of their gains, the loss by hand, and what is loaded is what was saved."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.ranker.calibration import Calibration, calibration_error, fit_calibration
from recsys.ranker.trees import Lists, Trees, _gradients, fit_trees, listwise_loss

NAMES = ("useful", "useless")


def make_lists(count: int, seed: int) -> Lists:
    """Lists of five items, one of which fits, the likelier the larger its first feature is."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((count, 5, 2)).astype(np.float32)
    fits = (3 * features[:, :, 0] + random.gumbel(size=(count, 5))).argmax(axis=1)
    gains = np.zeros((count, 5))
    gains[np.arange(count), fits] = 1
    return Lists(features.reshape(-1, 2), gains.ravel(), np.full(count, 5))


@pytest.fixture(scope="module")
def trees() -> Trees:
    return fit_trees(make_lists(400, 0), make_lists(150, 1), NAMES)


def test_trees_learn_what_orders_a_list(trees):
    held_out = make_lists(300, 2)
    best = trees.scores(held_out.features).reshape(-1, 5).argmax(axis=1)
    wanted = held_out.gains.reshape(-1, 5).argmax(axis=1)
    by_truth = held_out.features[:, 0].reshape(-1, 5).argmax(axis=1)
    assert (best == wanted).mean() > (by_truth == wanted).mean() - 0.05
    assert list(trees.gain_of())[0] == "useful"
    assert sum(trees.gain_of().values()) == pytest.approx(1)


def test_the_loss_is_the_cross_entropy_of_gains_and_shares():
    lists = Lists(np.zeros((5, 1), np.float32), np.array([1.0, 0, 0, 0.5, 0]), np.array([2, 3]))
    scores = np.log(np.array([3.0, 1, 2, 1, 1]))
    wanted = -(np.log(3 / 4) + 0.5 * np.log(1 / 4)) / 1.5
    assert listwise_loss(scores, lists) == pytest.approx(wanted)
    assert listwise_loss(scores + 1_000, lists) == pytest.approx(wanted)


def test_gradients_are_those_of_the_loss():
    random = np.random.default_rng(0)
    lists = Lists(np.zeros((7, 1), np.float32), random.random(7), np.array([3, 4]))
    scores, step, total = random.standard_normal(7), 1e-6, lists.gains.sum()
    gradient, curvature = _gradients(scores, lists)
    for row, moved in enumerate(step * np.eye(7)):
        slope = listwise_loss(scores + moved, lists) - listwise_loss(scores - moved, lists)
        assert gradient[row] == pytest.approx(slope / (2 * step) * total, abs=1e-6)
    assert (curvature > 0).all()


def test_saved_trees_score_as_they_did_and_the_same_lists_give_the_same_trees(trees):
    features = make_lists(20, 3).features
    loaded = Trees.from_text(trees.to_text())
    assert np.array_equal(loaded.scores(features), trees.scores(features))
    again = fit_trees(make_lists(400, 0), make_lists(150, 1), NAMES)
    assert np.array_equal(again.scores(features), trees.scores(features))


def test_a_list_without_items_that_fit_teaches_nothing_and_is_no_fault(trees):
    lists, features = make_lists(400, 0), make_lists(20, 3).features
    more = Lists(
        np.concatenate([lists.features, features]),
        np.append(lists.gains, np.zeros(len(features))),
        np.append(lists.sizes, np.full(20, 5)),
    )
    gradient, _ = _gradients(np.random.default_rng(0).random(len(more.gains)), more)
    assert (gradient[len(lists.gains) :] == 0).all()


@pytest.mark.parametrize(("number", "name"), [(0, "train"), (1, "valid")])
def test_lists_of_which_nothing_fits_are_refused(number, name):
    given = [make_lists(10, 0), make_lists(10, 1)]
    given[number] = Lists(given[number].features, np.zeros(50), given[number].sizes)
    with pytest.raises(ValueError, match=f"no {name} list"):
        fit_trees(given[0], given[1], NAMES)


def test_what_is_no_text_of_trees_and_features_that_do_not_fit_are_refused(trees):
    with pytest.raises(ValueError, match="no text"):
        Trees.from_text("nonsense")
    with pytest.raises(ValueError, match="2 features, not 3"):
        trees.scores(np.zeros((1, 3)))


def test_probabilities_are_the_shares_that_fit_and_never_fall_with_the_score():
    random = np.random.default_rng(0)
    scores = random.standard_normal(20_000)
    chance = 1 / (1 + np.exp(-2 * scores))
    found = fit_calibration(scores[:10_000], (random.random(10_000) < chance[:10_000]) * 1.0)
    probabilities = found.of(scores[10_000:])
    fits = (random.random(10_000) < chance[10_000:]) * 1.0
    assert calibration_error(probabilities, fits) < 0.03
    assert calibration_error(np.full(10_000, 0.9), fits) == pytest.approx(0.4, abs=0.02)
    assert (np.diff(found.of(np.linspace(-9, 9, 100))) >= 0).all()
    again = Calibration.from_json(found.to_json())
    assert np.array_equal(again.of(scores), found.of(scores))


def test_weighted_clicks_give_the_chance_of_a_click_at_the_first_place():
    random = np.random.default_rng(0)
    scores, examination = random.random(40_000), random.choice([1.0, 0.25], 40_000)
    clicked = random.random(40_000) < examination * scores
    found = fit_calibration(scores, clicked / examination)
    middle = np.linspace(0.1, 0.8, 8)
    assert found.of(middle) == pytest.approx(middle, abs=0.06)

"""Each model that learns must find two groups of users, and the same ones each time."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from recsys.eval.baselines.bilinear import BilinearFactors
from recsys.eval.baselines.factors import AlsFactors, BprFactors
from recsys.eval.baselines.neighbours import ItemNeighbours, UserNeighbours
from recsys.eval.baselines.scoring import Scorer, ScoringRanker
from recsys.eval.baselines.sparse import Sparse
from recsys.eval.baselines.training_matrix import join_windows
from tests.eval.baselines.made import (
    GROUP,
    histories,
    make_catalogue,
    make_counts,
    planted_rows,
)

NUM_ITEMS = 2 * GROUP + 1  # the last one has no events
COUNTS = join_windows(planted_rows(), NUM_ITEMS).counts
LEARNERS: dict[str, Callable[[Sparse], Scorer]] = {
    "item_knn": ItemNeighbours,
    "user_knn": UserNeighbours,
    "user_knn_pearson": lambda counts: UserNeighbours(counts, similarity="pearson"),
    "als": lambda counts: AlsFactors(counts, num_factors=8),
    "bpr": lambda counts: BprFactors(counts, num_factors=8),
    "bilinear_mf": lambda counts: BilinearFactors(counts, num_factors=8),
}
# Users who were not trained on, the third with an item nobody took and the fourth of both groups.
NEW_USERS = histories([0, 1, 2], [13, 12], [4, 20], [5, 15])


@pytest.fixture(params=LEARNERS)
def learn(request: pytest.FixtureRequest) -> Callable[[Sparse], Scorer]:
    return LEARNERS[request.param]


def test_new_users_get_the_items_of_their_group(learn):
    counts = np.asarray(COUNTS.sum(axis=0)).ravel().astype(int)
    ranker = ScoringRanker(learn(COUNTS), make_catalogue(counts.tolist()), filter_seen=True)
    ranked = ranker.rank(NEW_USERS[:3], [7] * 3, [[]] * 3)
    assert [{item // GROUP for item in r.item_indexes} for r in ranked] == [{0}, {1}, {0}]


def test_scores_are_finite_numbers_for_every_item(learn):
    scores = learn(COUNTS).scores(NEW_USERS)
    assert scores.shape == (len(NEW_USERS), NUM_ITEMS)
    assert np.isfinite(scores).all()


def test_the_same_rows_give_the_same_scores(learn):
    assert learn(COUNTS).scores(NEW_USERS).tolist() == learn(COUNTS).scores(NEW_USERS).tolist()


def test_a_history_is_scored_alike_alone_and_among_others(learn):
    scorer = learn(COUNTS)
    together = scorer.scores(NEW_USERS)
    alone = np.concatenate([scorer.scores([history]) for history in NEW_USERS])
    assert alone == pytest.approx(together, rel=1e-4, abs=1e-5)


def test_an_item_without_events_is_nobodys_first(learn):
    scores = learn(COUNTS).scores(NEW_USERS[:2])
    own = np.stack([scores[0, :GROUP], scores[1, GROUP : 2 * GROUP]])
    assert (own > scores[:, [-1]]).all()


@pytest.mark.parametrize("learner", [AlsFactors, BprFactors, BilinearFactors])
def test_another_seed_starts_elsewhere(learner):
    one, other = (learner(COUNTS, num_factors=8, seed=seed).scores(NEW_USERS) for seed in (0, 1))
    assert one.tolist() != other.tolist()


def test_learning_leaves_the_global_random_numbers_alone():
    before = torch.random.get_rng_state()
    BilinearFactors(COUNTS, num_factors=8, epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_implicit_finds_blas_with_one_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("implicit.utils._checked_blas_config", False)
    with threadpool_limits(2, "blas"), warnings.catch_warnings():
        warnings.simplefilter("error")
        AlsFactors(COUNTS, num_factors=8)


def test_an_event_is_not_predicted_from_itself():
    # Of users with one event nothing is left to predict it from: only biases may be learned.
    counts = make_counts(np.eye(4, dtype=int).tolist() * 5)
    asked = histories([0], [1])
    untrained, trained = (
        BilinearFactors(counts, num_factors=8, epochs=epochs).scores(asked) for epochs in (0, 20)
    )
    assert trained[0] != pytest.approx(untrained[0], abs=1e-3)
    assert trained[0] - trained[1] == pytest.approx(untrained[0] - untrained[1], abs=1e-5)

"""The recommender's demand: who counts at which time, and that nothing is lost in the sum."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.bulk.demand import ACTIVE_HALF_LIFE, UNIT, shares_of, spread, states_at
from recsys.engine.recommender import MODEL, Ranked
from recsys.schema import SECONDS_A_DAY
from tests.data.made_events import event, sequences_of

DAY, HALF = SECONDS_A_DAY, int(ACTIVE_HALF_LIFE)


def test_a_user_counts_by_recent_events_and_has_the_history_of_the_time():
    rows = [event("u", 1, 0), event("u", 2, HALF * DAY), event("v", 3, 2 * HALF * DAY - 1)]
    states = states_at(sequences_of(rows), [HALF * DAY, 2 * HALF * DAY])
    found = zip(states.numbers.tolist(), states.ends.tolist(), states.weights.tolist(), strict=True)
    assert list(found) == [
        (0, 1, pytest.approx([0.5, 0.0])),
        (0, 2, pytest.approx([0.0, 0.5 + 0.25])),
        (1, 1, pytest.approx([0.0, 1.0], abs=1e-5)),
    ]


def test_one_history_at_two_times_is_ranked_once():
    states = states_at(sequences_of([event("u", 1, 0)]), [DAY, HALF * DAY])
    assert (states.numbers.tolist(), states.ends.tolist()) == ([0], [1])
    assert states.weights[0].tolist() == pytest.approx([0.5 ** (1 / HALF), 0.5])


def test_users_long_gone_and_users_to_come_do_not_count():
    rows = [event("u", 1, 0), event("v", 2, 300 * DAY)]
    assert len(states_at(sequences_of(rows), [200 * DAY]).numbers) == 0


def test_each_weight_is_spread_by_softmax():
    ranked = [Ranked([2, 0], [0.1 * np.log(3), 0.0], MODEL), Ranked([1], [0.7], MODEL)]
    units = spread(ranked, np.array([[1.0, 2.0], [0.5, 0.0]]), temperature=0.1, num_items=3)
    assert units * UNIT == pytest.approx(np.array([[0.25, 0.5, 0.75], [0.5, 0.0, 1.5]]))
    assert shares_of(units)[0].tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2])


def test_the_sum_has_no_order():
    random = np.random.default_rng(0)
    ranked = [
        Ranked(random.permutation(9)[:4].tolist(), random.random(4).tolist(), MODEL)
        for _ in range(50)
    ]
    weights = random.random((50, 1))
    parts = [spread([one], w[None], 0.07, 9) for one, w in zip(ranked, weights, strict=True)]
    assert np.array_equal(sum(parts), sum(reversed(parts)))
    assert np.array_equal(sum(parts), spread(ranked, weights, 0.07, 9))
    assert sum(parts).sum() * UNIT == pytest.approx(weights.sum())


def test_without_demand_shares_are_even():
    assert shares_of(np.zeros((1, 4), dtype=np.int64)).tolist() == [[0.25] * 4]


def test_a_user_to_whom_nothing_can_be_answered_is_left_out():
    assert spread([Ranked([], [], MODEL)], np.ones((1, 1)), 0.07, 2).tolist() == [[0, 0]]

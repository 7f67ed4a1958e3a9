"""Drift moves what is popular and nothing else; without it a world is what it always was."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from recsys.config import WorldConfig
from recsys.data.synthetic import DAY, START, World, generate

SMALL = WorldConfig(num_users=400, num_items=200, num_days=40, num_queries=20)
STILL = "3aa0fcc59ad8e9a8dab83aec5674eff0057a99f329cce4adc541d416b95fd916"


def digest(world: World) -> str:
    tables = (world.interactions, world.items, world.queries)
    return hashlib.sha256(repr([t.to_pydict() for t in tables]).encode()).hexdigest()


@pytest.fixture(scope="module")
def drifting() -> World:
    return generate(SMALL.model_copy(update={"drift": 0.2}))


def places(world: World, day: int) -> np.ndarray:
    """Ranks of the items that are never cold, by popularity within their type on a day."""
    period = world.demand.period(np.array([START + day * DAY]))[0]
    return world.demand.shares[period][~world.catalogue.cold].argsort().argsort()


def test_a_world_without_drift_is_byte_for_byte_the_one_of_before_there_was_drift():
    assert digest(generate(SMALL)) == STILL


def test_equal_configs_give_equal_drifting_worlds(drifting: World):
    assert digest(drifting) == digest(generate(SMALL.model_copy(update={"drift": 0.2})))
    assert digest(drifting) != STILL


def test_the_first_day_is_as_without_drift(drifting: World):
    still = generate(SMALL).demand
    assert np.array_equal(drifting.demand.shares[0], still.shares[0])
    assert np.array_equal(drifting.demand.type_shares[0], still.type_shares[0])


def test_popularity_is_less_and_less_like_that_of_the_first_day(drifting: World):
    likeness = [
        np.corrcoef(places(drifting, 0), places(drifting, day))[0, 1] for day in (0, 1, 5, 39)
    ]
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[1] > 0.7
    assert likeness[3] < 0.5


def test_how_unequal_popularity_is_never_changes(drifting: World):
    demand, types = drifting.demand, drifting.catalogue.types
    assert np.ptp(np.sort(demand.type_shares, axis=1), axis=0).max() < 1e-12
    for shares in demand.shares:
        assert np.bincount(types, shares) == pytest.approx(np.ones(types.max() + 1))


def test_cold_items_come_late_in_a_drifting_world_too(drifting: World):
    items = np.array([int(i[1:]) for i in drifting.interactions["item_id"].to_pylist()])
    times = drifting.interactions["timestamp"].to_numpy()
    cold = drifting.catalogue.cold[items]
    assert cold.any()
    assert times[cold].min() >= drifting.cold_from


def test_people_take_what_is_popular_at_the_time(drifting: World):
    items = np.array([int(i[1:]) for i in drifting.interactions["item_id"].to_pylist()])
    times = drifting.interactions["timestamp"].to_numpy()
    last = times >= START + 35 * DAY
    taken = np.bincount(items[last], minlength=SMALL.num_items)
    demand, types = drifting.demand, drifting.catalogue.types
    first, newest = (demand.shares[n] * demand.type_shares[n][types] for n in (0, -1))
    assert np.corrcoef(taken, newest)[0, 1] > np.corrcoef(taken, first)[0, 1] + 0.2

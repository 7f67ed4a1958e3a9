"""Examination and attraction against a made world that knows them, and logs that cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from recsys.ranker.click_model import fit_position_model

NUM_PLACES, A_QUERY = 6, 10
EXAMINATION = 1 / np.arange(1, NUM_PLACES + 1)


def shown(
    queries: int, requests: int, seed: int = 0
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Pairs, places and clicks of a ranker that knows nothing of attraction, and the attraction.

    Each request orders ten items by what the ranker makes of them and noise, and shows the first
    six.
    """
    random = np.random.default_rng(seed)
    attraction = random.beta(1, 3, (queries, A_QUERY))
    query = random.integers(queries, size=requests)
    taken_for = random.random((queries, A_QUERY))
    noisy = taken_for[query] + 0.3 * random.standard_normal((requests, A_QUERY))
    best = np.argsort(-noisy, axis=1)[:, :NUM_PLACES]
    pairs = (query[:, None] * A_QUERY + best).ravel()
    places = np.tile(np.arange(1, NUM_PLACES + 1), requests)
    chance = EXAMINATION[places - 1] * attraction.ravel()[pairs]
    clicked = (random.random(len(chance)) < chance).astype(np.int64)
    return (pairs, places, clicked), attraction.ravel()


@pytest.mark.parametrize("queries", [20, 4_000], ids=["500 requests a query", "2.5"])
def test_examination_is_found_within_a_tenth_also_where_pairs_are_rare(queries):
    log, _ = shown(queries, 10_000)
    model = fit_position_model(*log)
    assert model.places.tolist() == [1, 2, 3, 4, 5, 6]
    assert model.examination == pytest.approx(EXAMINATION, rel=0.15, abs=0.03)


def test_attraction_orders_items_better_than_how_often_they_were_clicked():
    log, attraction = shown(20, 10_000)
    pairs, _, clicked = log
    model = fit_position_model(*log)
    times = np.bincount(pairs, minlength=len(attraction))
    ctr = np.bincount(pairs, clicked, len(attraction)) / times.clip(1)
    often = model.looks > 50
    assert np.abs(model.attraction - attraction)[often].mean() < 0.04
    found = kendalltau(model.attraction[often], attraction[often]).statistic
    assert found > kendalltau(ctr[often], attraction[often]).statistic + 0.05


def test_an_item_that_is_shown_low_is_not_taken_for_a_worse_one():
    # Both are shown 1,000 times, the better one nine times of ten at the second place, which is
    # looked at a tenth as often: 450 x .2 clicks in 900, and 50 x .4 in 100.
    def block(pair, place, times, clicks):
        return [(pair, place, int(number < clicks)) for number in range(times)]

    rows = block(0, 1, 900, 180) + block(0, 2, 100, 2) + block(1, 1, 100, 40) + block(1, 2, 900, 36)
    log = tuple(np.array(rows).T)
    model = fit_position_model(*log)
    assert log[2][log[0] == 0].sum() > log[2][log[0] == 1].sum()
    assert model.examination == pytest.approx([1, 0.1], abs=1e-4)
    assert model.attraction == pytest.approx([0.2, 0.4], abs=1e-3)
    assert model.looks == pytest.approx([910, 190], abs=0.1)


def test_a_click_weighs_the_inverse_of_examination_up_to_a_limit():
    log, _ = shown(20, 10_000)
    model = fit_position_model(*log)
    places = np.array([1, 2, 6, 60])
    found = model.weights(places, max_weight=4.0)
    assert found[0] == 1
    assert found[1] == pytest.approx(1 / model.examination[1])
    assert found[2:].tolist() == [4, 4]


def test_weighted_clicks_are_those_that_every_item_had_at_the_first_place():
    log, attraction = shown(20, 10_000)
    pairs, places, clicked = log
    weights = fit_position_model(*log).weights(places)
    # An item clicked with chance e a and weight 1 / e gives a on average, wherever it stood.
    assert (clicked * weights).mean() == pytest.approx(attraction[pairs].mean(), rel=0.05)
    assert clicked.mean() < 0.7 * attraction[pairs].mean()


def test_one_order_for_all_requests_tells_nothing_and_is_refused():
    pairs, places = np.tile([0, 1, 2], 10), np.tile([1, 2, 3], 10)
    with pytest.raises(ValueError, match="another order"):
        fit_position_model(pairs, places, np.ones(30, dtype=int))


def test_places_that_no_clicked_item_links_are_named_and_take_the_one_above():
    rows = [(0, 1, 1), (0, 2, 1), (0, 1, 0), (1, 2, 1), (1, 1, 1), (2, 3, 1), (3, 4, 0), (3, 1, 0)]
    model = fit_position_model(*np.array(rows).T)
    assert (model.places.tolist(), model.unknown.tolist()) == ([1, 2], [3, 4])
    assert model.examination_of(np.array([2, 3, 9])).tolist() == [model.examination[1]] * 3


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([(0, 1, 0), (0, 2, 1)], "nothing at place 1"),
        ([(0, 0, 1)], "places from 1"),
        ([(0, 1, 2)], "0 or 1"),
    ],
)
def test_what_is_no_log_of_clicks_is_refused(rows, told):
    with pytest.raises(ValueError, match=told):
        fit_position_model(*np.array(rows).T)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        fit_position_model(np.zeros(2), np.ones(3), np.ones(2))

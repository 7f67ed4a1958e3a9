"""Team-draft interleaving: fair to both rankers, and right about who is better."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from recsys.experiments.interleaving import preference, team_draft

rankings = st.permutations(list("abcdefgh"))


@settings(deadline=None, max_examples=200)
@given(rankings, rankings, st.integers(1, 8), st.integers(0, 1000))
def test_each_ranker_puts_its_best_items_and_as_many_as_the_other(first, second, length, seed):
    found = team_draft(first, second, length, np.random.default_rng(seed))
    assert len(set(found.item_ids)) == len(found.item_ids) == length
    assert abs(found.teams.count(0) - found.teams.count(1)) <= 1
    for place, (item, team) in enumerate(zip(found.item_ids, found.teams, strict=True)):
        left = [i for i in (first, second)[team] if i not in found.item_ids[:place]]
        assert item == left[0]


def test_the_answer_ends_where_a_ranking_does():
    for seed in range(20):
        found = team_draft(["a"], ["b", "c", "d", "e"], 4, np.random.default_rng(seed))
        assert found.teams.count(1) <= 2
        assert len(found.item_ids) <= 3


def test_a_coin_says_who_begins_each_round():
    rng = np.random.default_rng(0)
    begins = [team_draft("abcd", "efgh", 3, rng).teams for _ in range(400)]
    for place in (0, 2):
        heads = sum(teams[place] for teams in begins)
        assert binom.ppf(0.001, 400, 0.5) <= heads <= binom.ppf(0.999, 400, 0.5)


def clicks_of(users: int, seed: int, better: bool) -> tuple[np.ndarray, np.ndarray]:
    """Clicks on each ranker's items by users who click what they like, and often nothing."""
    rng = np.random.default_rng(seed)
    good, bad = list("abcdefgh"), list("hgfedcba")
    likes = dict(zip(good, np.linspace(0.5, 0.05, 8), strict=True))
    counts = np.zeros((2, users))
    for user in range(users):
        found = team_draft(bad, good if better else bad, 4, rng)
        for item, team in zip(found.item_ids, found.teams, strict=True):
            counts[team, user] += rng.random() < likes[item]
    return counts[0], counts[1]


def test_the_better_ranker_wins():
    found = preference(*clicks_of(200, 0, better=True))
    assert found.second_wins > found.first_wins
    assert found.p_value < 0.001
    assert found.first_wins + found.second_wins + found.ties == 200


def test_a_ranker_against_itself_wins_no_more_than_by_chance():
    alarms = sum(
        preference(*clicks_of(40, seed, better=False)).p_value < 0.05 for seed in range(200)
    )
    assert alarms <= binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize(("first", "second"), [(3, 9), (10, 2), (5, 5), (0, 1), (0, 12)])
def test_the_p_value_is_that_of_the_sign_test(first, second):
    clicks = np.array([1] * first + [0] * second + [4] * 3)
    others = np.array([0] * first + [2] * second + [4] * 3)
    found = preference(clicks, others)
    assert (found.first_wins, found.second_wins, found.ties) == (first, second, 3)
    assert found.p_value == pytest.approx(binomtest(first, first + second).pvalue)


def test_without_a_winner_nothing_is_shown():
    assert preference(np.ones(3), np.ones(3)).p_value == 1.0

"""A model judged by the log of a policy that showed items at random: the truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from recsys.config import AnalysisConfig
from recsys.engine.recommender import Event, Query, Recommender
from recsys.eval.policy_estimate import (
    PolicyEstimate,
    estimate_policy,
    predicted_rewards,
    print_estimate,
)
from recsys.experiments.exposures import Exposure
from tests.engine.test_recommender import IDS, make_recommender
from tests.experiments.made_logs import START, exposure, write_logs

USERS, PLACES = 400, 2
GOOD, OTHER = 0.6, 0.1


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return make_recommender()


def best_for(recommender: Recommender, item_id: str) -> list[str]:
    [answer] = recommender.recommend([Query([Event(item_id, START - 9, "view")], PLACES)])
    return [item.item_id for item in answer.items]


@pytest.fixture(scope="module")
def logs(recommender: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each user did one thing before; what the model would put at a place is clicked more often."""
    rng, place = np.random.default_rng(0), tmp_path_factory.mktemp("logs")
    best = {item_id: best_for(recommender, item_id) for item_id in IDS[:4]}
    shown: list[Exposure] = []
    events: list[tuple] = []
    for user in map(str, range(USERS)):
        before = IDS[rng.integers(4)]
        events += [(user, before, START - 9, "view"), (user, IDS[7], START + 99, "view")]
        chosen = rng.permutation(best[before])  # in the model's order, or the other way round
        chances = [0.5] * PLACES
        shown.append(exposure(user, items=chosen.tolist(), propensities=chances))
        for item, wanted in zip(chosen, best[before], strict=True):
            if rng.random() < (GOOD if item == wanted else OTHER):
                events.append((user, item, START + 5, "click"))
    again = shown[0]
    twice = Exposure(**{n: getattr(again, n) for n in again.__slots__} | {"experiment": "other"})
    write_logs(place, [*shown, twice], events)
    return place


@pytest.fixture(scope="module")
def found(recommender: Recommender, logs: Path) -> PolicyEstimate:
    places = (str(logs / "exposures"), str(logs / "feedback"))
    return estimate_policy(recommender, *places, AnalysisConfig(), clip=20.0)


def test_every_method_holds_the_truth_and_the_log_is_known_to_be_worse(
    found: PolicyEstimate,
) -> None:
    assert list(found.model) == ["ips", "snips", "doubly robust"]
    for one in found.model.values():
        assert one.low < GOOD < one.high
    logged = (GOOD + OTHER) / 2
    assert found.logged.low < logged < found.logged.high < found.model["snips"].low
    assert found.model["ips"].clipped == 0


def test_a_request_of_two_experiments_counts_once_and_all_rows_are_told(
    found: PolicyEstimate,
) -> None:
    assert found.rows == {"read": USERS + 1, "kept": USERS + 1, "refused": 0, "repeated_request": 1}
    assert found.logged.effective_rows == pytest.approx(USERS * PLACES)


def test_a_row_is_predicted_by_the_users_of_the_other_fold() -> None:
    rows = pl.DataFrame(
        {
            "request_id": ["r1", "r2", "r3"],
            "item_id": ["x", "x", "y"],
            "position": [1, 1, 1],
            "clicked": [1, 0, 0],
            "user_id": ["a", "b", "d"],
        }
    )
    target = rows.select("request_id", pl.lit("y").alias("item_id"), "position")
    shown, placed = predicted_rewards(rows, target)
    # Users a and d are one fold, whose mean is 0.5; b is the other, whose mean is 0.
    assert shown.tolist() == pytest.approx([0.0, (1 + 20 * 0.5) / 21, 0.0])
    assert placed.tolist() == pytest.approx([0.0, 20 * 0.5 / 21, 0.0])


def test_a_log_without_propensities_is_refused(recommender: Recommender, tmp_path: Path) -> None:
    write_logs(tmp_path, [exposure("u", items=IDS[:2])], [("u", IDS[0], START + 1, "click")])
    places = (str(tmp_path / "exposures"), str(tmp_path / "feedback"))
    with pytest.raises(ValueError, match="no propensity"):
        estimate_policy(recommender, *places, AnalysisConfig(), clip=20.0)


def test_the_table_names_each_method_with_its_interval(found: PolicyEstimate) -> None:
    console = Console(width=120)
    with console.capture() as capture:
        print_estimate(found, console)
    told = capture.get()
    assert all(name in told for name in ("the log itself", "ips", "snips", "doubly robust"))
    assert f"read {USERS + 1}" in told

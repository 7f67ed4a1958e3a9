"""A canary from its first look to its end, in a made shop whose time is the test's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ray_jobs import canary
from recsys import registry
from recsys.experiments.canary import experiments_toml, state
from recsys.experiments.canary.run import MOST_BLIND, Canary, Clock
from recsys.experiments.canary.state import CanaryState, load_state
from tests.experiments.canary.made_shop import CONFIG, NOON, OTHERS, Model, Shop
from tests.test_registry import register

SHORT = CONFIG.model_copy(update={"max_step_s": 3_600.0})
QUICK = CONFIG.model_copy(update={"min_requests": 10, "min_clicks": 1, "hold_s": 600.0})
NUM_WRITES = 11
"""Of a run of `QUICK`."""


class Killed(BaseException):
    """The machine is gone; nobody catches it."""


def ends_without_the_candidate(shop: Shop, end: CanaryState) -> None:
    """Rolled back: nobody gets it, live is what it was, and the file of the others' is whole."""
    assert end.outcome == "rolled back"
    assert load_state(shop.places.state) == end
    assert shop.version("live") == shop.versions[0]
    experiment = shop.experiment()
    assert experiment is None or experiment.ramp == 0
    assert Path(shop.places.experiments).read_text().startswith(OTHERS)


def test_a_good_candidate_goes_through_all_steps_and_becomes_live(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    end = shop.run()
    assert end.outcome == "promoted", end
    assert shop.ramps == [0.1, 0.5]
    assert shop.version("live") == shop.versions[1]
    experiment = shop.experiment()
    assert experiment is not None
    assert experiment.end is not None
    assert experiment.end.timestamp() <= shop.now
    assert Path(shop.places.experiments).read_text().startswith(OTHERS)
    # At 5% 100 requests a look, 300 are needed; 25% is held half an hour.
    assert 3_600 <= shop.now - NOON <= 6_600
    assert shop.run() == end


def test_a_candidate_with_fewer_clicks_is_rolled_back_with_the_reason(tmp_path: Path) -> None:
    shop = Shop(tmp_path, candidate=Model(ctr=0.05))
    end = shop.run()
    ends_without_the_candidate(shop, end)
    assert end.reason.startswith("CTR: ")
    assert end.figures["candidate"]["ctr"] < end.figures["live"]["ctr"]


def test_a_candidate_that_fails_is_rolled_back_before_its_first_step_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, candidate=Model(failing=0.2))
    end = shop.run()
    ends_without_the_candidate(shop, end)
    assert "failed" in end.reason
    assert shop.ramps == [0.1]
    places = shop.places
    arguments = canary.Arguments(places.registry, places.experiments, places.feedback)
    assert canary.run(arguments) == canary.ROLLED_BACK
    assert end.reason in capsys.readouterr().out


def test_a_slow_candidate_is_rolled_back(tmp_path: Path) -> None:
    shop = Shop(tmp_path, candidate=Model(ms=60.0))
    end = shop.run()
    ends_without_the_candidate(shop, end)
    assert "live's p99" in end.reason


def test_too_little_traffic_holds_the_step_until_its_time_is_over(tmp_path: Path) -> None:
    shop = Shop(tmp_path, users=100)
    end = shop.run(SHORT)
    ends_without_the_candidate(shop, end)
    assert "of 300 requests after 1.0 hours at 5% of the users" in end.reason
    assert shop.now - NOON == SHORT.max_step_s


def test_a_candidate_that_some_replicas_lack_does_not_become_live(tmp_path: Path) -> None:
    shop = Shop(tmp_path, lacking=0.3)
    end = shop.run(SHORT)
    ends_without_the_candidate(shop, end)
    assert "a replica may have refused it" in end.reason


def test_without_clicks_in_the_log_nothing_becomes_live(tmp_path: Path) -> None:
    shop = Shop(tmp_path, live=Model(ctr=0.0), candidate=Model(ctr=0.0))
    end = shop.run(SHORT)
    ends_without_the_candidate(shop, end)
    assert "0 of 20 clicks" in end.reason


def set_ramp_to_0(shop: Shop) -> None:
    text = Path(shop.places.experiments).read_text()
    Path(shop.places.experiments).write_text(text.replace("ramp = 0.1", "ramp = 0.0"))


def take_the_file_of_experiments_back(shop: Shop) -> None:
    Path(shop.places.experiments).write_text(OTHERS)


@pytest.mark.parametrize("meddle", [set_ramp_to_0, take_the_file_of_experiments_back])
def test_a_hand_in_the_file_of_experiments_ends_it(
    tmp_path: Path, meddle: Callable[[Shop], None]
) -> None:
    shop = Shop(tmp_path, before_sleep=meddle)
    end = shop.run()
    ends_without_the_candidate(shop, end)
    assert "changed by hand" in end.reason
    assert shop.now - NOON == CONFIG.look_s


def test_a_live_model_that_is_moved_meanwhile_ends_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    third = register(shop.registry, tmp_path, 3, NOON).name
    shop.before_sleep = lambda shop: shop.registry.point("live", third, shop.now)
    end = shop.run()
    assert end.outcome == "rolled back"
    assert end.reason == f"'live' was moved from {shop.versions[0]} to {third}"
    assert shop.version("live") == third


def break_log(shop: Shop) -> None:
    broken = shop.folder / "log" / "requests" / "date=2025-06-16" / "part-0.parquet"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"half a file")


def test_a_log_that_cannot_be_read_is_tried_again_and_then_it_goes_back(tmp_path: Path) -> None:
    shop = Shop(tmp_path, users=100, before_sleep=break_log)
    end = shop.run()
    ends_without_the_candidate(shop, end)
    assert "part-0.parquet is empty, truncated or not Parquet" in end.reason
    assert shop.now - NOON == MOST_BLIND * CONFIG.look_s


def test_who_watches_no_more_leaves_an_experiment_that_ends(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    watched = Canary(shop.places, SHORT, Clock(lambda: shop.now, shop.sleep))
    watched.begin()
    watched.look()
    experiment = shop.experiment()
    assert experiment is not None
    assert experiment.is_running(datetime.fromtimestamp(NOON + SHORT.max_step_s, UTC))
    assert not experiment.is_running(datetime.fromtimestamp(NOON + 2 * SHORT.max_step_s, UTC))


def test_a_judged_candidate_is_judged_again_only_when_it_is_promoted_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, candidate=Model(failing=0.5))
    first = shop.run(SHORT)
    ended = shop.now
    assert shop.run(SHORT) == first
    assert shop.now == ended

    shop.candidate = Model()
    shop.registry.point("candidate", shop.versions[1], shop.now)
    second = shop.run(SHORT)
    assert second.outcome == "promoted"
    assert second.experiment != first.experiment
    assert Path(shop.places.experiments).read_text().count("canary-") == 2  # name and salt of one


def test_a_new_candidate_ends_a_canary_that_was_left_alone(tmp_path: Path) -> None:
    shop = Shop(tmp_path, users=2_000)
    left_alone = Canary(shop.places, QUICK, Clock(lambda: shop.now, shop.sleep))
    left_alone.begin()
    left_alone.look()
    shop.now += 86_400
    newer = register(shop.registry, tmp_path, 3, shop.now).name
    shop.registry.point("candidate", newer, shop.now)
    shop.versions[1] = newer
    assert shop.run(QUICK).outcome == "promoted"
    assert shop.version("live") == newer
    assert Path(shop.places.experiments).read_text().count("canary-") == 2


def test_there_must_be_a_candidate_that_nobody_else_shows(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    theirs = OTHERS.replace("max_per_category = 1", 'alias = "candidate"')
    Path(shop.places.experiments).write_text(theirs)
    with pytest.raises(ValueError, match="'variety' shows the candidate too"):
        shop.run()
    Path(shop.places.experiments).write_text(OTHERS)
    shop.registry.point("candidate", shop.versions[0], shop.now)
    with pytest.raises(ValueError, match="is live"):
        shop.run()


@pytest.mark.parametrize("write", range(1, NUM_WRITES + 1))
def test_a_crash_before_any_write_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    shop = Shop(tmp_path, users=1_000)
    count = iter(range(1, 1_000))

    def dying(write_bytes: Callable[..., None]) -> Callable[..., None]:
        def wrapped(place: str, content: bytes) -> None:
            if next(count) == write:
                raise Killed
            write_bytes(place, content)

        return wrapped

    for module in (state, experiments_toml, registry):
        monkeypatch.setattr(module, "write_bytes", dying(module.write_bytes))
    with pytest.raises(Killed):
        shop.run(QUICK)
    done = shop.run(QUICK)
    assert done.outcome == "promoted", done
    assert shop.ramps == [0.1, 0.5]
    assert shop.version("live") == shop.versions[1]
    assert shop.registry.back("live", shop.now).version == shop.versions[0]  # moved once
    assert next(count) > NUM_WRITES

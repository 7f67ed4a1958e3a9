"""A canary from its first look to its end, in a made shop whose time is the test's."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.experiments.canary.state import CanaryState, load_state
from tests.experiments.canary.made_shop import CONFIG, NOON, OTHERS, Model, Shop


class Killed(BaseException):
    """The machine is gone; nobody catches it."""


def ends_without_the_candidate(shop: Shop, state: CanaryState) -> None:
    """Rolled back: nobody gets it, live is what it was, and the file of the others' is whole."""
    assert state.outcome == "rolled back"
    assert load_state(shop.places.state) == state
    assert shop.version("live") == shop.versions[0]
    experiment = shop.experiment()
    assert experiment is None or experiment.ramp == 0
    assert Path(shop.places.experiments).read_text().startswith(OTHERS)


def test_a_good_candidate_goes_through_all_steps_and_becomes_live(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    state = shop.run()
    assert state.outcome == "promoted", state
    assert shop.ramps == [0.1, 0.5]
    assert shop.version("live") == shop.versions[1]
    experiment = shop.experiment()
    assert experiment is not None
    assert experiment.end is not None
    assert experiment.end.timestamp() <= shop.now
    assert Path(shop.places.experiments).read_text().startswith(OTHERS)
    # At 5% 100 requests a look, 300 are needed; 25% is held half an hour.
    assert 3_600 <= shop.now - NOON <= 6_600
    assert shop.run() == state


def test_a_candidate_with_fewer_clicks_is_rolled_back_with_the_reason(tmp_path: Path) -> None:
    shop = Shop(tmp_path, candidate=Model(ctr=0.05))
    state = shop.run()
    ends_without_the_candidate(shop, state)
    assert state.reason.startswith("CTR: ")
    assert state.figures["candidate"]["ctr"] < state.figures["live"]["ctr"]


def test_a_candidate_that_fails_is_rolled_back_before_its_first_step_is_over(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path, candidate=Model(failing=0.2))
    state = shop.run()
    ends_without_the_candidate(shop, state)
    assert "failed" in state.reason
    assert shop.ramps == [0.1]


def test_a_slow_candidate_is_rolled_back(tmp_path: Path) -> None:
    shop = Shop(tmp_path, candidate=Model(ms=60.0))
    state = shop.run()
    ends_without_the_candidate(shop, state)
    assert "live's p99" in state.reason


def test_too_little_traffic_holds_the_step_until_its_time_is_over(tmp_path: Path) -> None:
    shop = Shop(tmp_path, users=200)
    state = shop.run()
    ends_without_the_candidate(shop, state)
    assert "of 300 requests after 4.0 hours at 5% of the users" in state.reason
    assert shop.now - NOON == CONFIG.max_step_s


def test_a_candidate_that_some_replicas_lack_does_not_become_live(tmp_path: Path) -> None:
    shop = Shop(tmp_path, lacking=0.3)
    state = shop.run()
    ends_without_the_candidate(shop, state)
    assert "a replica may have refused it" in state.reason


@pytest.mark.parametrize("calls", [1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29])
def test_a_crash_at_any_write_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    shop = Shop(tmp_path, users=2_000)
    config = CONFIG.model_copy(update={"min_requests": 50, "min_clicks": 5, "hold_s": 600})
    left = [calls]

    def dying(write):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return write(*args, **kwargs)

        return wrapped

    from recsys import registry
    from recsys.experiments.canary import experiments_toml, state

    for module in (state, experiments_toml, registry):
        monkeypatch.setattr(module, "write_bytes", dying(module.write_bytes))
    try:
        done = shop.run(config)
    except Killed:
        done = shop.run(config)
    assert done.outcome == "promoted", done
    assert shop.ramps == [0.1, 0.5]
    assert shop.version("live") == shop.versions[1]

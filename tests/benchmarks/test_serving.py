"""The serving benchmarks: how a load is searched, what is served, and when a run means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks import serving_process
from benchmarks.batching import ALONE, FINENESS, MOST, tries_under
from benchmarks.serve_vs_bentoml import check_same
from benchmarks.serve_vs_defaults import production
from benchmarks.serving_load import Load
from benchmarks.serving_process import ROOMY, Server, serve_config
from recsys.config import ServeArgs

LIMIT_MS = 100.0
PAIR = {"checkpoint": "c", "index": "i"}


def load(p99_ms: float, failed: int = 0) -> Load:
    return Load(requests_per_second=100.0, p50_ms=1.0, p99_ms=p99_ms, failed=failed)


@pytest.mark.parametrize("ms_a_client", [0.45, 1.0, 3.0, 12.0, 30.0, 99.0])
def test_the_most_clients_within_the_limit_are_found_to_a_quarter(ms_a_client) -> None:
    tried = tries_under(LIMIT_MS, lambda clients: load(ms_a_client * clients))
    most = int(LIMIT_MS / ms_a_client)
    found = max(clients for clients, seen in tried.items() if seen.p99_ms <= LIMIT_MS)
    assert found <= most <= found + max(1, found // FINENESS)


def test_no_more_clients_are_tried_than_a_replica_takes() -> None:
    assert max(tries_under(LIMIT_MS, lambda _: load(1.0))) == MOST


def test_a_limit_that_one_client_is_over_is_said() -> None:
    with pytest.raises(ValueError, match="one client is 120.0 ms: allow more by --limit-ms"):
        tries_under(LIMIT_MS, lambda _: load(120.0))


def test_production_is_measured_with_its_own_batches_and_limits() -> None:
    args, options = production()
    [application] = serve_config(8000, {**PAIR, **args}, options)["applications"]
    [wanted] = yaml.safe_load(Path("serve_configs/production.yaml").read_text())["applications"]
    served = ServeArgs.model_validate(application["args"])
    assert served.max_batch_size == wanted["args"]["max_batch_size"]
    assert served.batch_wait_timeout_s == wanted["args"]["batch_wait_timeout_s"]
    [deployment] = application["deployments"]
    [theirs] = wanted["deployments"]
    assert deployment["max_ongoing_requests"] == theirs["max_ongoing_requests"]


def test_a_deployment_without_options_has_rays_defaults_and_one_replica() -> None:
    [application] = serve_config(8000, {**PAIR, **ALONE}, {})["applications"]
    [deployment] = application["deployments"]
    assert set(deployment) == {"name", "num_replicas", "ray_actor_options"}
    assert ServeArgs.model_validate(application["args"]).max_batch_size == 1


def test_nothing_that_was_computed_once_is_answered_again() -> None:
    [application] = serve_config(8000, PAIR, ROOMY)["applications"]
    served = ServeArgs.model_validate(application["args"])
    assert served.cache_size == served.user_states_mb == 0


def test_a_rate_of_refusals_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("http://127.0.0.1:1", "i", pid=1)
    monkeypatch.setattr(serving_process, "run_load", lambda *_: load(5.0, failed=2))
    assert server.load(64, seconds=2.0).failed == 2  # of 200
    monkeypatch.setattr(serving_process, "run_load", lambda *_: load(5.0, failed=3))
    with pytest.raises(RuntimeError, match="3 requests of 64 clients failed"):
        server.load(64, seconds=2.0)


@pytest.mark.parametrize(
    "other",
    [
        [{"item_id": "b", "score": 0.5}, {"item_id": "a", "score": 0.5}],
        [{"item_id": "a", "score": 0.5}, {"item_id": "b", "score": 0.49}],
        [{"item_id": "a", "score": 0.5}],
    ],
)
def test_servers_that_answer_differently_are_not_compared(other) -> None:
    ours = [{"item_id": "a", "score": 0.5}, {"item_id": "b", "score": 0.5 + 1e-7}]
    check_same([ours], [ours])
    with pytest.raises(RuntimeError, match="body 0 is answered differently"):
        check_same([ours], [other])

"""Serve configs: every key is known, and what is promised to a client under load is set."""

from __future__ import annotations

import pytest
import yaml

from recsys.config import ServeArgs
from tests.cluster.strict import ROOT, dotted, key_paths, load_yaml, misspelt, serve_faults

FILES = sorted(path.name for path in (ROOT / "serve_configs").glob("*.yaml"))
CONFIGS = {name: load_yaml(f"serve_configs/{name}") for name in FILES}
CONFIGS["rayservice.yaml"] = yaml.safe_load(
    load_yaml("cluster/base/rayservice.yaml")["spec"]["serveConfigV2"]
)
EVERY_CONFIG = pytest.mark.parametrize("name", CONFIGS)
EVERY_KEY = [(name, at) for name, document in CONFIGS.items() for at in key_paths(document)]


def application(name: str) -> dict:
    """The one application of a config."""
    (found,) = CONFIGS[name]["applications"]
    return found


def deployment(name: str) -> dict:
    """The one deployment of a config."""
    (found,) = application(name)["deployments"]
    return found


def test_both_configs_are_there():
    assert FILES == ["production.yaml", "toy.yaml"]


@EVERY_CONFIG
def test_ray_and_the_application_take_every_key(name):
    assert serve_faults(CONFIGS[name]) == []


@pytest.mark.parametrize(
    ("name", "at"), EVERY_KEY, ids=[f"{n}-{dotted(at)}" for n, at in EVERY_KEY]
)
def test_a_misspelt_key_is_caught(name, at):
    assert serve_faults(misspelt(CONFIGS[name], at))


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_queued_requests", "many"), ("max_surge_percent", 101), ("num_replicas", 0)],
)
def test_a_bad_value_is_caught(key, value):
    document = {"applications": [{"import_path": "a:b", "deployments": [{"name": "c"}]}]}
    document["applications"][0]["args"] = {"checkpoint": "c", "index": "i"}
    assert serve_faults(document) == []
    document["applications"][0]["deployments"][0][key] = value
    assert serve_faults(document)


@EVERY_CONFIG
def test_the_application_exists(name):
    module, function = application(name)["import_path"].split(":")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py")
    assert f"def {function}(" in source.read_text(encoding="utf-8")
    sources = (path.read_text(encoding="utf-8") for path in source.parent.glob("*.py"))
    assert any(deployment(name)["name"] in text for text in sources)


@EVERY_CONFIG
def test_a_request_neither_waits_nor_queues_without_end(name):
    options, wanted = CONFIGS[name]["http_options"], deployment(name)
    assert options["request_timeout_s"] > 0
    ongoing = wanted["max_ongoing_requests"]
    assert 2 * ongoing <= wanted["max_queued_requests"] <= 4 * ongoing
    assert wanted["backpressure_config"]["status_code"] == 429
    assert wanted["backpressure_config"]["retry_after_s"] > 0


@EVERY_CONFIG
def test_a_replica_takes_two_batches(name):
    args = ServeArgs(**application(name)["args"])
    assert deployment(name)["max_ongoing_requests"] >= 2 * args.max_batch_size


@EVERY_CONFIG
def test_the_application_refuses_long_before_rays_router_would_wait_for_a_place(name):
    args = ServeArgs(**application(name)["args"])
    assert deployment(name)["max_ongoing_requests"] >= 4 * args.security.limits.max_in_progress


@EVERY_CONFIG
def test_a_replica_has_a_core_for_each_thread(name):
    args = ServeArgs(**application(name)["args"])
    assert deployment(name)["ray_actor_options"]["num_cpus"] == args.num_threads


def test_the_toy_is_not_open_to_the_network():
    assert CONFIGS["toy.yaml"]["http_options"]["host"] == "127.0.0.1"


def test_production_has_no_single_replica_and_no_gap_in_an_update():
    wanted = deployment("production.yaml")
    scaling = wanted["autoscaling_config"]
    assert 2 <= scaling["min_replicas"] < scaling["max_replicas"]
    assert scaling["target_ongoing_requests"] <= wanted["max_ongoing_requests"]
    assert wanted["max_surge_percent"] > 0
    assert wanted["max_replicas_per_node"] == 1


def test_production_finishes_what_it_has_accepted():
    timeout = CONFIGS["production.yaml"]["http_options"]["request_timeout_s"]
    assert deployment("production.yaml")["graceful_shutdown_timeout_s"] > timeout


def test_production_logs_json():
    assert CONFIGS["production.yaml"]["logging_config"]["encoding"] == "JSON"


def test_kubernetes_serves_what_production_says():
    assert CONFIGS["rayservice.yaml"] == CONFIGS["production.yaml"]

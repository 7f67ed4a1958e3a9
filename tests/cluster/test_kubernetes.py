"""Every Kubernetes file: known keys, references that resolve, and overlays that can be built."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.config import load_config
from tests.cluster.known_keys import PATCH, unknown
from tests.cluster.strict import ROOT, KeyPath, dotted, key_paths, misspelt

CLUSTER = ROOT / "cluster"
PATHS = sorted(CLUSTER.glob("*/*.yaml")) + sorted(CLUSTER.glob("overlays/*/*.yaml"))
NAMES = [str(path.relative_to(CLUSTER)) for path in PATHS]
OVERLAYS = ("dev", "production")
STAGES = ("prepare", "train", "index", "evaluate")


def documents(path: Path) -> list[dict]:
    """Everything in a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def closed_keys(document: dict) -> Iterator[KeyPath]:
    """Paths of the keys that are not a name which the author gives."""
    for at in key_paths(document):
        if not unknown(misspelt(document, at)):
            continue
        yield at


def resources(folder: Path) -> list[dict]:
    """What a kustomization names, its base included, without its patches."""
    (kustomization,) = documents(folder / "kustomization.yaml")
    found = []
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        found += resources(path) if path.is_dir() else documents(path)
    return found


def patched(folder: Path) -> list[dict]:
    """What `kustomize build` makes of an overlay with JSON patches."""
    found = {(each["kind"], each["metadata"]["name"]): each for each in resources(folder)}
    (kustomization,) = documents(folder / "kustomization.yaml")
    for patch in kustomization.get("patches", []):
        target = found[patch["target"]["kind"], patch["target"]["name"]]
        for change in yaml.safe_load(patch["patch"]):
            assert change.keys() == PATCH.keys()
            apply(target, change)
    return list(found.values())


def apply(document: Any, change: dict) -> None:
    """One change of a JSON patch (RFC 6902), `add` or `replace`."""
    *parents, last = change["path"].lstrip("/").split("/")
    for step in parents:
        document = document[int(step) if isinstance(document, list) else step]
    assert (last in document) == (change["op"] == "replace"), change["path"]
    document[last] = change["value"]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_every_key_is_known(path):
    assert [dotted(at) for document in documents(path) for at in unknown(document)] == []


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_misspelt_key_is_caught(path):
    for document in documents(path):
        caught = set(closed_keys(document))
        # What is left are labels, selectors, quantities and what a patch sets.
        open_keys = {at for at in key_paths(document) if at not in caught}
        inside = {"labels", "matchLabels", "selector", "requests", "limits", "annotations"}
        assert all(inside & set(at[:-1]) for at in open_keys), open_keys


def test_each_file_is_named_once_and_each_name_is_unique():
    for overlay in OVERLAYS:
        found = resources(CLUSTER / "overlays" / overlay)
        made = [(each["kind"], each["metadata"]["name"]) for each in found]
        assert len(made) == len(set(made))


def patched_of(overlay: str) -> list[dict]:
    """The documents of an overlay."""
    return patched(CLUSTER / "overlays" / overlay)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_can_be_built_and_has_all_its_files(overlay):
    assert [dotted(at) for each in patched_of(overlay) for at in unknown(each)] == []
    for folder in (CLUSTER / "base", CLUSTER / "overlays" / overlay):
        (kustomization,) = documents(folder / "kustomization.yaml")
        files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert files <= set(kustomization["resources"])


def test_production_encrypts_between_nodes_and_survives_its_head():
    (service,) = [each for each in patched_of("production") if each["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["tlsOptions"] == {"enabled": True}
    address = cluster["gcsFaultToleranceOptions"]["redisAddress"].split(":")
    (redis,) = [each for each in patched_of("production") if each["kind"] == "Service"]
    assert address == [redis["metadata"]["name"], str(redis["spec"]["ports"][0]["port"])]


def test_budgets_and_policies_choose_pods_that_there_are():
    every = patched_of("production")
    (service,) = [each for each in every if each["kind"] == "RayService"]
    groups = {g["groupName"] for g in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    redis = {"app": "redis"}
    known = [{"ray.io/is-ray-node": "yes"}, {"ray.io/node-type": "head"}, redis]
    known += [{"ray.io/group": group} for group in groups]
    (stateful,) = [each for each in every if each["kind"] == "StatefulSet"]
    assert stateful["spec"]["template"]["metadata"]["labels"] == redis
    for each in every:
        if each["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            assert each["spec"]["selector"]["matchLabels"] in known
        if each["kind"] == "NetworkPolicy":
            assert each["spec"]["podSelector"]["matchLabels"] in known


def test_only_the_gateway_and_kuberay_reach_the_service():
    (policy,) = [
        each
        for each in patched_of("production")
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "ray-nodes"
    ]
    allowed = [
        peer
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
        if 8000 in {port["port"] for port in rule.get("ports", [])}
    ]
    assert [peer["namespaceSelector"]["matchLabels"] for peer in allowed] == [
        {"recsys/gateway": "true"},
        {"kubernetes.io/metadata.name": "kuberay-system"},
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_on_the_standing_cluster_by_a_verb_and_a_config_that_exist(stage):
    (job,) = documents(CLUSTER / f"jobs/rayjob-{stage}.yaml")
    (cluster,) = documents(CLUSTER / "jobs/raycluster.yaml")
    spec, words = job["spec"], shlex.split(job["spec"]["entrypoint"])
    assert spec["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert words[:3] == ["python", "-m", f"ray_jobs.{stage}"]
    assert (ROOT / f"ray_jobs/{stage}.py").is_file()
    assert (ROOT / words[words.index("--config") + 1]).is_file()
    # KubeRay refuses both on a cluster that is not the job's own.
    assert not {"backoffLimit", "shutdownAfterJobFinishes"} & spec.keys()


def test_the_loop_runs_by_a_verb_and_a_config_that_exist_and_splits_by_time():
    (job,) = documents(CLUSTER / "jobs/raycronjob.yaml")
    (_, _, command) = shlex.split(job["spec"]["jobTemplate"]["entrypoint"])
    assert "python -m ray_jobs.refresh " in command
    assert (ROOT / "ray_jobs/refresh.py").is_file()
    (config,) = re.findall(r"--config (\S+)", command)
    assert load_config(ROOT / config).prepare.split.strategy == "time"


def test_stages_hand_on_by_one_output():
    outputs = set()
    for stage in STAGES:
        (job,) = documents(CLUSTER / f"jobs/rayjob-{stage}.yaml")
        outputs |= set(re.findall(r"--output (\S+)", job["spec"]["entrypoint"]))
    assert len(outputs) == 1

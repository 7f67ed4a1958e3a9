"""Dockerfile, KubeRay manifests and the `ray up` file: versions, names, limits, secrets."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cluster.strict import ROOT, dotted, key_paths, load_yaml, misspelt

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
JOB = load_yaml("cluster/jobs/rayjob-pipeline.yaml")
SERVICE = load_yaml("cluster/base/rayservice.yaml")
AWS = load_yaml("cluster/aws.yaml")
CLUSTERS = {
    "raycluster": load_yaml("cluster/jobs/raycluster.yaml")["spec"],
    "rayjob": JOB["spec"]["rayClusterSpec"],
    "rayservice": SERVICE["spec"]["rayClusterConfig"],
}
EVERY_CLUSTER = pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
RAY = version("ray")
IMAGE = f"registry.example.com/recsys:{PROJECT['version']}-ray{RAY}"
PLACES = (ROOT / "cluster", ROOT / "serve_configs")
FILES = [path for place in PLACES for path in place.rglob("*") if path.is_file()]


def values(document: Any, key: str) -> Iterator[Any]:
    """Everything that stands under the name `key`, at any depth."""
    for at in key_paths(document):
        if at[-1] == key:
            found = document
            for step in at:
                found = found[step]
            yield found


def groups(cluster: dict) -> list[dict]:
    """Head and workers of a RayCluster spec."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def dockerfile_words(instruction: str) -> list[list[str]]:
    """The words after each `instruction` of the Dockerfile."""
    lines = re.findall(rf"^{instruction} (.*)$", DOCKERFILE, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def aws_schema() -> dict:
    """Ray's own schema of the `ray up` file; found without importing Ray."""
    (package,) = find_spec("ray").submodule_search_locations
    return json.loads((Path(package) / "autoscaler/ray-schema.json").read_text(encoding="utf-8"))


def test_the_project_pins_the_installed_ray():
    extras = PROJECT["optional-dependencies"].values()
    wanted = [line for lines in (PROJECT["dependencies"], *extras) for line in lines]
    pins = {line.partition("==")[2] for line in wanted if re.match(r"ray\b", line)}
    assert pins == {RAY}


def test_the_image_is_built_on_that_ray_and_a_python_the_project_takes():
    assert ["RAY_VERSION=" + RAY] in dockerfile_words("ARG")
    assert dockerfile_words("FROM") == [["rayproject/ray:${RAY_VERSION}-py311-${PLATFORM}"]]
    assert PROJECT["requires-python"] == ">=3.11"


def test_the_image_is_built_from_files_that_exist():
    sources = [word for words in dockerfile_words("COPY") for word in words[1:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_image_holds_the_project_for_a_user_who_is_not_root():
    assert dockerfile_words("USER") == [["1000"]]
    _, project = dockerfile_words("RUN")
    assert project == ["pip", "install", "--no-cache-dir", "--no-deps", "--no-build-isolation", "."]


def test_the_image_takes_no_package_whose_hash_is_not_in_the_lock():
    packages, _ = (" ".join(words) for words in dockerfile_words("RUN"))
    assert "--no-deps --require-hashes -r .ci/lock/image.txt -r .ci/lock/$torch.txt" in packages


@EVERY_CLUSTER
def test_every_pod_runs_the_one_image_and_its_ray(cluster):
    assert cluster["rayVersion"] == RAY
    assert set(values(cluster, "image")) == {IMAGE}


def test_every_machine_runs_the_one_image():
    assert AWS["docker"]["image"] == IMAGE


@pytest.mark.parametrize(("document", "kind"), [(JOB, "RayJob"), (SERVICE, "RayService")])
def test_the_manifests_are_kuberay_v1(document, kind):
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)


def test_the_job_runs_the_pipeline_and_then_goes_away():
    assert JOB["spec"]["entrypoint"] == (
        "python -m ray_jobs.pipeline --config ray_jobs/configs/toy.toml"
        " --data s3://my-bucket/data --output s3://my-bucket/run"
    )
    assert JOB["spec"]["submissionMode"] == "K8sJobMode"
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True
    assert JOB["spec"]["activeDeadlineSeconds"] > 0


def test_the_job_names_a_module_and_a_config_that_exist():
    words = shlex.split(JOB["spec"]["entrypoint"])
    module = words[words.index("-m") + 1].replace(".", "/") + ".py"
    config = words[words.index("--config") + 1]
    assert [path for path in (module, config) if not (ROOT / path).is_file()] == []


def test_the_job_starts_where_the_image_holds_the_configs():
    ((workdir,),) = dockerfile_words("WORKDIR")
    assert f"local://{workdir} " in JOB["spec"]["runtimeEnvYAML"]


def test_the_service_answers_from_the_workers_while_it_changes():
    assert SERVICE["spec"]["excludeHeadPodFromServeSvc"] is True
    assert SERVICE["spec"]["upgradeStrategy"] == {"type": "NewCluster"}


@EVERY_CLUSTER
def test_the_head_does_no_work(cluster):
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_pipeline_can_have_gpus_and_takes_them_only_when_asked():
    (gpu,) = [group for group in groups(CLUSTERS["rayjob"])[1:] if group["groupName"] == "gpu"]
    (resources,) = values(gpu, "resources")
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["minReplicas"] == gpu["replicas"] == 0


def test_there_is_a_pod_for_every_replica_and_the_surge():
    (pods,) = CLUSTERS["rayservice"]["workerGroupSpecs"]
    (deployment,) = load_yaml("serve_configs/production.yaml")["applications"][0]["deployments"]
    scaling, surge = deployment["autoscaling_config"], deployment["max_surge_percent"]
    assert pods["minReplicas"] >= scaling["min_replicas"]
    assert pods["maxReplicas"] >= scaling["max_replicas"] * (1 + surge / 100)
    (cpus,) = {found["limits"]["cpu"] for found in values(pods, "resources")}
    assert int(cpus) >= deployment["ray_actor_options"]["num_cpus"]


@EVERY_CLUSTER
def test_every_container_has_limits_and_the_memory_it_asks_for(cluster):
    found = list(values(cluster, "resources"))
    assert len(found) == len(groups(cluster)) + 1  # and the autoscaler's container
    assert all(each["requests"] == each["limits"] for each in found)
    assert all({"cpu", "memory"} <= each["limits"].keys() for each in found)


@EVERY_CLUSTER
def test_no_container_runs_as_root(cluster):
    for group in groups(cluster):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


@EVERY_CLUSTER
def test_a_cluster_wants_a_token(cluster):
    assert cluster["authOptions"] == {"mode": "token"}


def test_machines_want_the_token_that_is_copied_to_them():
    assert "--env RAY_AUTH_MODE=token" in AWS["docker"]["run_options"]
    assert AWS["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert any("--dashboard-host=127.0.0.1" in line for line in AWS["head_start_ray_commands"])


@EVERY_CLUSTER
def test_credentials_come_from_the_account_or_a_secret(cluster):
    for group in groups(cluster):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == "recsys"
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "recsys-s3", "optional": True}}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path):
    secret = r"AKIA[0-9A-Z]{16}|PRIVATE KEY|kind: Secret|(?:KEY|SECRET|PASSWORD|TOKEN) *[:=] *\w"
    assert re.findall(secret, path.read_text(encoding="utf-8")) == []


def test_ray_takes_the_aws_file():
    jsonschema.Draft7Validator(aws_schema()).validate(AWS)


@pytest.mark.parametrize("at", [at for at in key_paths(AWS) if len(at) == 1], ids=dotted)
def test_ray_refuses_the_aws_file_with_a_misspelt_key(at):
    assert list(jsonschema.Draft7Validator(aws_schema()).iter_errors(misspelt(AWS, at)))


def test_the_aws_file_has_a_head_cpu_workers_and_spot_gpu_workers():
    nodes = AWS["available_node_types"]
    assert nodes[AWS["head_node_type"]]["resources"] == {"CPU": 0}
    spot = {name for name, node in nodes.items() if "InstanceMarketOptions" in node["node_config"]}
    assert spot == {"gpu_worker_spot"}
    assert set(nodes) == {"head", "cpu_worker", "gpu_worker_spot"}


def test_machines_reach_the_bucket_by_their_profile():
    for node in AWS["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"]["Name"].startswith("recsys-ray-")

"""The whole pipeline on S3: raw input, every artifact and the training shards."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from recsys.artifact import open_artifact
from recsys.config import EvaluationConfig, IndexConfig, ModelConfig, PrepareConfig, WorldConfig
from recsys.data.prepare import prepare
from recsys.data.synthetic import generate
from recsys.eval.evaluate import evaluate
from recsys.index.build import build_index
from recsys.training.trainer import train
from tests.conftest import S3_PORT, TOY_TRAINING

pytestmark = [
    pytest.mark.ray,
    # moto's own server uses names that werkzeug and botocore are about to drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
BUCKET = "shop"


@pytest.fixture(scope="module")
def s3() -> Iterator[boto3.client]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=S3_PORT)
    server.start()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


def _upload_world() -> str:
    world = generate(WorldConfig(num_users=120, num_items=40, num_queries=0))
    fs, root = pafs.FileSystem.from_uri(f"s3://{BUCKET}/data")
    for name, table in {"interactions": world.interactions, "items": world.items}.items():
        half = len(table) // 2
        pq.write_table(table.slice(0, half), f"{root}/{name}/1.parquet", filesystem=fs)
        pq.write_table(table.slice(half), f"{root}/{name}/2.parquet", filesystem=fs)
    return f"s3://{BUCKET}/data"


def test_prepare_to_evaluate_runs_on_s3_alone(
    s3: boto3.client, local_ray: None, toy_model: ModelConfig
) -> None:
    data, run = _upload_world(), f"s3://{BUCKET}/run"
    config = PrepareConfig(max_history=8, max_item_tokens=16, num_partitions=2)
    dataset = prepare(config, toy_model.backbone, data, f"{run}/dataset")
    training = TOY_TRAINING.model_copy(update={"epochs": 1})
    checkpoint = train(toy_model, training, dataset, f"{run}/checkpoint")
    index = build_index(IndexConfig(), dataset, checkpoint, f"{run}/index")
    report = evaluate(EvaluationConfig(), dataset, checkpoint, index, f"{run}/report")

    scores = report.read_json("report.json")["models"]["model"]["all"]
    assert scores["users"] == dataset.manifest.facts["rows"]["test"]
    for name, kind in {"dataset": "dataset", "checkpoint": "checkpoint", "index": "index"}.items():
        open_artifact(f"{run}/{name}", kind)
    _check_with_boto3(s3, "run/report")
    shards = s3.list_objects_v2(Bucket=BUCKET, Prefix="run/checkpoint-run/")["Contents"]
    assert sum("optim_states" in shard["Key"] for shard in shards) == 2


def test_the_endpoint_of_the_config_reaches_every_worker(
    s3: boto3.client, tiny_backbone: str, tmp_path: Path
) -> None:
    """There is no AWS_ENDPOINT_URL, so a driver or worker that missed it would find nothing."""
    data = _upload_world()
    (tmp_path / "small.toml").write_text("[prepare]\nmax_item_tokens = 16\n")
    flags = ["--config", str(tmp_path / "small.toml"), "--model.backbone", tiny_backbone]
    places = ["--data", data, "--output", f"s3://{BUCKET}/by-config"]
    endpoint = ["--storage.endpoint", f"http://127.0.0.1:{S3_PORT}"]
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.prepare", *flags, *places, *endpoint],
        cwd=Path(__file__).parents[1],
        env={k: v for k, v in os.environ.items() if k not in ("AWS_ENDPOINT_URL", "RAY_AUTH_MODE")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"s3://{BUCKET}/by-config/dataset"
    open_artifact(f"s3://{BUCKET}/by-config/dataset", "dataset")


def _check_with_boto3(s3: boto3.client, prefix: str) -> None:
    """The manifest holds the truth about what another S3 client reads."""
    manifest = json.loads(_read(s3, f"{prefix}/manifest.json"))
    assert {entry["path"] for entry in manifest["files"]} == {
        *("report.html", "report.json", "rows.parquet")
    }
    for entry in manifest["files"]:
        content = _read(s3, f"{prefix}/{entry['path']}")
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def _read(s3: boto3.client, key: str) -> bytes:
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

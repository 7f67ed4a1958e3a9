"""Heads trained by real workers beside the sequence loss, and what the checkpoint then holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load

from recsys.artifact import Artifact, open_artifact
from recsys.config import ModelConfig, PrepareConfig
from recsys.data.prepare import prepare
from recsys.models.build import WEIGHTS, load_model
from recsys.training.trainer import train
from tests.conftest import TOY_TRAINING, write_shop

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

NUM_USERS, NUM_ITEMS, NUM_EVENTS = 60, 20, 8


@pytest.fixture(scope="module")
def rated_shop(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Users who rate the first half of the items high and the second low; one rates nothing."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(NUM_USERS), NUM_EVENTS)
    items = random.integers(NUM_ITEMS, size=len(users))
    ratings = np.where(items < NUM_ITEMS // 2, 5.0, 1.0) + random.normal(0, 0.1, len(users))
    interactions = {
        "user_id": [f"u{user}" for user in users],
        "item_id": [f"i{item}" for item in items],
        "timestamp": 1_600_000_000 + np.arange(len(users)) * 60,
        "value": np.where(users == 0, np.nan, ratings),
    }
    catalogue = {
        "item_id": [f"i{item}" for item in range(NUM_ITEMS)],
        "title": [
            f"{'red hammer' if i < NUM_ITEMS // 2 else 'blue shirt'}" for i in range(NUM_ITEMS)
        ],
    }
    return write_shop(tmp_path_factory.mktemp("rated"), interactions, catalogue)


@pytest.fixture(scope="module")
def rated(
    tmp_path_factory: pytest.TempPathFactory, rated_shop: str, tiny_backbone: str
) -> Artifact:
    config = PrepareConfig(max_history=4, max_item_tokens=16, num_partitions=2, keep_values=True)
    output = str(tmp_path_factory.mktemp("rated_dataset") / "dataset")
    return prepare(config, tiny_backbone, rated_shop, output)


def test_values_change_nothing_of_a_dataset_that_does_not_keep_them(
    tmp_path: Path, rated: Artifact, rated_shop: str, tiny_backbone: str
) -> None:
    config = PrepareConfig(max_history=4, max_item_tokens=16, num_partitions=2)
    plain = prepare(config, tiny_backbone, rated_shop, str(tmp_path / "dataset"))
    for part in ("train", "valid", "test"):
        kept, dropped = (_table(dataset, part) for dataset in (rated, plain))
        assert "values" in kept.column_names
        assert not {"values", "target_values"} & set(dropped.column_names)
        assert kept.select(dropped.column_names).equals(dropped)


def _table(dataset: Artifact, part: str) -> pa.Table:
    tables = [dataset.read_table(name) for name in dataset.names(f"{part}/")]
    return sorted(tables, key=lambda table: table["user_id"][0].as_py())[0]


@pytest.mark.parametrize(("zero_stage", "num_negatives"), [(2, 0), (3, 8)])
def test_heads_learn_and_come_back_with_the_checkpoint(
    tmp_path: Path, rated: Artifact, toy_model: ModelConfig, zero_stage: int, num_negatives: int
) -> None:
    told = {
        "zero_stage": zero_stage,
        "num_negatives": num_negatives,
        "mask_history_negatives": num_negatives > 0,
        "loss_chunk": 8,
        "rating_weight": 1.0,
        "probability_weight": 1.0,
        "epochs": 6,
        "precision": "bf16" if zero_stage == 3 else "fp32",
    }
    config = TOY_TRAINING.model_copy(update=told)
    checkpoint = train(toy_model, config, rated, str(tmp_path / "checkpoint"))
    # The run's log: the checkpoint's own ends with the epoch that was the best by ranking.
    [log] = tmp_path.rglob("log.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    epochs = [row for row in rows if "valid_rmse" in row]
    assert epochs[-1]["valid_rmse"] < 0.9 * epochs[0]["valid_rmse"]
    assert epochs[-1]["valid_log_loss"] < 0.6
    model, _ = load_model(open_artifact(checkpoint.uri, "checkpoint"), with_text=False)
    assert model.heads is not None
    assert model.heads.rating.mean.item() == pytest.approx(3, abs=0.5)
    assert model.heads.probability.calibration.tolist() != [1.0, 0.0]
    assert model.heads.probability.item_counts.sum() > 0


def test_a_checkpoint_without_heads_has_no_tensor_of_them(toy_checkpoint: Artifact) -> None:
    names = load(toy_checkpoint.read_bytes(WEIGHTS))
    assert not [name for name in names if name.startswith("heads.")]
    assert load_model(toy_checkpoint, with_text=False)[0].heads is None

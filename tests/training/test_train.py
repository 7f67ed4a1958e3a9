"""Real Ray Train workers with real DeepSpeed: every ZeRO stage, tuning, resume."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load

from recsys.artifact import Artifact, open_artifact
from recsys.config import ModelConfig
from recsys.models.build import WEIGHTS, load_model
from recsys.training.trainer import train
from tests.conftest import TOY_TRAINING

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("local_ray"),
    # peft 0.21 asks transformers 5 by a name that is about to go.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


def _losses(checkpoint: Artifact) -> list[float]:
    return [row["loss"] for row in checkpoint.read_json("training_log.json") if "loss" in row]


def _weights(checkpoint: Artifact) -> dict[str, torch.Tensor]:
    return load(checkpoint.read_bytes(WEIGHTS))


def test_zero_2_learns_and_writes_a_checkpoint_that_loads(toy_checkpoint: Artifact) -> None:
    losses = _losses(toy_checkpoint)
    assert losses[-1] < losses[0] - 0.1
    loaded, shape = load_model(open_artifact(toy_checkpoint.uri, "checkpoint"))
    assert shape.num_items == 60
    assert loaded.text_encoder is not None


def test_zero_3_learns_the_same_as_zero_2(
    tmp_path: Path, toy_checkpoint: Artifact, toy_dataset: Artifact, toy_model: ModelConfig
) -> None:
    config = TOY_TRAINING.model_copy(update={"zero_stage": 3})
    zero_3 = train(toy_model, config, toy_dataset, str(tmp_path / "checkpoint"))
    assert _losses(zero_3) == pytest.approx(_losses(toy_checkpoint), abs=1e-4)
    for name, weight in _weights(toy_checkpoint).items():
        torch.testing.assert_close(_weights(zero_3)[name], weight, atol=1e-3, rtol=1e-3)


def test_a_run_whose_worker_is_killed_ends_with_the_same_weights(
    tmp_path: Path, toy_checkpoint: Artifact, toy_dataset: Artifact, toy_model: ModelConfig
) -> None:
    output = str(tmp_path / "checkpoint")
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_worker_after_a_checkpoint, args=(output, killed))
    killer.start()
    resumed = train(toy_model, TOY_TRAINING, toy_dataset, output)
    killer.join()
    assert killed, "no worker was killed, so nothing was tested"
    assert _losses(resumed) == pytest.approx(_losses(toy_checkpoint), abs=1e-6)
    for name, weight in _weights(toy_checkpoint).items():
        torch.testing.assert_close(_weights(resumed)[name], weight, atol=1e-6, rtol=1e-5)


def _kill_a_worker_after_a_checkpoint(output: str, killed: list[int]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list(Path(f"{output}-run").glob("*/step_*/training_log.json")):
            workers = [p for p in psutil.Process().children(recursive=True) if _is_trainer(p)]
            os.kill(workers[0].pid, signal.SIGKILL)
            killed.append(workers[0].pid)
            return
        time.sleep(0.05)


def _is_trainer(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.parametrize(("tuning", "zero_stage"), [("lora", 2), ("full", 3)])
def test_a_tuned_backbone_changes_and_is_saved_merged(
    tmp_path: Path, toy_dataset: Artifact, toy_model: ModelConfig, tuning: str, zero_stage: int
) -> None:
    config = TOY_TRAINING.model_copy(
        update={
            "epochs": 1,
            "zero_stage": zero_stage,
            "precision": "bf16",
            "num_negatives": 16,
            "backbone_learning_rate": 1e-2,
        }
    )
    tuned = toy_model.model_copy(update={"tuning": tuning})
    checkpoint = train(tuned, config, toy_dataset, str(tmp_path / "checkpoint"))
    trained = load(checkpoint.read_bytes("backbone/model.safetensors"))
    original = load(Path(toy_model.backbone, "model.safetensors").read_bytes())
    assert set(trained) == set(original)
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.allclose(trained[name], original[name], atol=1e-4)
    assert load_model(checkpoint)[0].text_encoder is not None


def test_a_shorter_last_batch_leaves_a_rank_without_windows_and_still_trains(
    tmp_path: Path, toy_dataset: Artifact, toy_model: ModelConfig
) -> None:
    windows = toy_dataset.manifest.facts["rows"]["train"]
    size = next(s for s in range(2, windows, 2) if windows % s == 1)
    config = TOY_TRAINING.model_copy(update={"epochs": 1, "global_batch_size": size})
    ids = toy_model.model_copy(update={"item_features": "id"})
    checkpoint = train(ids, config, toy_dataset, str(tmp_path / "checkpoint"))
    assert checkpoint.read_json("training_log.json")[-1]["step"] == -(-windows // size)

"""What differential privacy costs in quality: the same small model with and without it.

    python -m benchmarks.private_training --dataset <dataset artifact>

One process without Ray. NDCG@10 is of the validation rows among the whole catalogue after the last
epoch, so that nothing is chosen by them. Items are known by their text alone, in frozen vectors.
Peer: the same model and epochs without privacy, by the default batch and rate. Beside them stand
the popularity of training events and the model before its first step.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import tyro
from safetensors.torch import save_file

from recsys.artifact import Artifact, open_artifact
from recsys.config import ModelConfig, TrainingConfig
from recsys.models.backbone import fit_whitening, load_text_encoder, pad_tokens
from recsys.models.build import SCORE, ModelShape, text_size
from recsys.schema import TOKEN_IDS
from recsys.training.anomaly import Watch
from recsys.training.cursor import Cursor
from recsys.training.guarantee import promise_on
from recsys.training.job import TEXT_VECTORS, TrainJob
from recsys.training.loop import train_step
from recsys.training.private import PrivateStep
from recsys.training.run import Run, make_run
from recsys.training.validate import validate

MODEL = {"item_features": "text", "embedding_size": 32, "projection_size": 32, "num_layers": 1}
ALONE = {"num_workers": 1, "zero_stage": 0, "precision": "fp32", "max_rollbacks": 0}
PEER, FIRST, POPULAR = "not private", "untrained", "popularity"


@dataclass(frozen=True)
class Arguments:
    """What is run."""

    dataset: str
    """Dataset artifact."""
    epochs: int = 10
    """Passes over the windows, or times that a user is drawn on average."""
    noise_multipliers: tuple[float, ...] = (0.8,)
    """Noise of each private run."""
    max_user_norm: float = 0.1
    """Norm that a user's gradient is clipped to."""
    delta: float = 1e-5
    """Below 1 over the users."""
    batch: int = 128
    """Users a step of the private runs."""
    learning_rate: float = 2e-3
    """Peak rate of the private runs."""


class Silent:
    """In place of a journal: nothing is measured."""

    def lap(self, name: str) -> None:
        """Nothing."""

    def encoded(self, work: object) -> None:
        """Nothing."""


def main(arguments: Arguments) -> None:
    """Run without privacy and with it, print a line each, and the ratio last."""
    dataset = open_artifact(arguments.dataset, "dataset")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        _alone(folder)
        vectors = _text_vectors(dataset, folder)
        for name, training in _runs(arguments).items():
            run = make_run(_job(dataset, training, vectors), 0, 1, torch.device("cpu"))
            found.setdefault(FIRST, validate(run)[SCORE])
            found.setdefault(POPULAR, popularity(run))
            start = time.process_time()
            found[name] = trained(run)
            promise, seconds = promise_on(training, dataset), time.process_time() - start
            told = "" if promise is None else f"epsilon {promise.epsilon:.2f}"
            print(f"{name:14}{found[name]:8.4f} {seconds:8.0f} CPU s  {told}", flush=True)
        torch.distributed.destroy_process_group()
    *_, last = found
    result = {
        "benchmark": "private_training",
        "peer": PEER,
        "ratio": round(found[last] / found[PEER], 3),
        "target": None,
        "higher_is_better": True,
        "detail": {name: round(value, 4) for name, value in found.items()},
    }
    print(json.dumps(result))


def trained(run: Run) -> float:
    """NDCG@10 of a run after its last step."""
    training = run.job.training
    take_step = PrivateStep(run) if training.privacy.is_on else train_step
    watch, silent, step = Watch(training), Silent(), 0
    for ready in run.batches.epochs(Cursor(), training.epochs):
        if ready is not None:
            take_step(run, ready.batch, step, watch, silent)  # pyright: ignore
            step += 1
    return validate(run)[SCORE]


def popularity(run: Run) -> float:
    """NDCG@10 of the items with most training events, for everyone alike."""
    counts_N = run.train_counts
    ranks_P = (counts_N[:, None] > counts_N[run.validation.targets]).sum(0).double()
    return torch.where(ranks_P < 10, 1 / torch.log2(ranks_P + 2), 0.0).mean().item()


def _alone(folder: str) -> None:
    """This process is the only rank, on one thread."""
    os.environ["LOCAL_RANK"] = "0"
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=0, world_size=1)


def _runs(arguments: Arguments) -> dict[str, TrainingConfig]:
    """The settings of each run."""
    runs: dict[str, dict[str, Any]] = {PEER: {}}
    for noise in arguments.noise_multipliers:
        privacy = {"noise_multiplier": noise, "delta": arguments.delta}
        privacy["max_user_norm"] = arguments.max_user_norm
        told = {"privacy": privacy, "global_batch_size": arguments.batch, "accumulation": 8}
        runs[f"noise {noise:g}"] = told | {"learning_rate": arguments.learning_rate}
    common = ALONE | {"epochs": arguments.epochs}
    return {name: TrainingConfig.model_validate(common | told) for name, told in runs.items()}


def _job(dataset: Artifact, training: TrainingConfig, vectors: str) -> TrainJob:
    model = _model(dataset)
    prepare = dataset.manifest.config["prepare"]
    shape = ModelShape(
        num_items=dataset.manifest.facts["num_items"],
        max_history=prepare["max_history"],
        num_events=len(prepare["events"]),
        text_size=text_size(model),
    )
    told = {"dataset": dataset.uri, "model": model, "training": training, "shape": shape}
    return TrainJob(**told, text_vectors=vectors)


def _model(dataset: Artifact) -> ModelConfig:
    return ModelConfig.model_validate(MODEL | {"backbone": dataset.manifest.config["backbone"]})


@torch.no_grad()
def _text_vectors(dataset: Artifact, folder: str) -> str:
    """The file of the items' whitened vectors."""
    encoder = load_text_encoder(_model(dataset)).eval()
    tokens = dataset.read_table("items.parquet", [TOKEN_IDS])[TOKEN_IDS].to_pylist()
    blocks = [tokens[start : start + 64] for start in range(0, len(tokens), 64)]
    text_NE = torch.cat([encoder.pooled(pad_tokens(block)) for block in blocks])
    mean_E, whitening_EE = fit_whitening(text_NE)
    place = str(Path(folder) / "vectors.safetensors")
    save_file({TEXT_VECTORS: (text_NE - mean_E) @ whitening_EE}, place)
    return place


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

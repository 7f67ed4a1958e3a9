"""A run of one rank in this process, without Ray: a model of IDs on fifteen made-up windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from recsys.artifact import Artifact
from recsys.config import ModelConfig, TrainingConfig
from recsys.models.build import ModelShape, build_model
from recsys.training.cursor import TrainWindows
from recsys.training.ingest import RankBatches
from recsys.training.job import CatalogueInputs, TrainJob, Validation, read_event_weights
from recsys.training.run import Run
from recsys.training.speed import model_costs
from recsys.training.zero import start_engine
from tests.training.test_ingest import EVENTS, NUM_ITEMS, NUM_WINDOWS

MODEL = ModelConfig(item_features="id", embedding_size=8, num_layers=1, num_heads=1, dropout=0.0)
TRAINING = TrainingConfig(
    num_workers=1, global_batch_size=6, precision="fp32", epochs=2, log_every=1, max_grad_norm=1e9
)


@contextmanager
def one_rank(folder: Path) -> Iterator[None]:
    """A process group of this process alone, as Ray Train would make it.

    It stays for the tests that follow: DeepSpeed keeps the first one it sees.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOCAL_RANK", "0")
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1
            )
        yield


def make_run(dataset: Artifact, **changes: Any) -> Run:
    """What `start_run` makes; the same weights whatever the settings."""
    training = TrainingConfig.model_validate({**TRAINING.model_dump(), **changes})
    shape = ModelShape(num_items=NUM_ITEMS, max_history=10, num_events=len(EVENTS), text_size=0)
    job = TrainJob(
        dataset=dataset.uri, model=MODEL, training=training, shape=shape, text_vectors=None
    )
    torch.manual_seed(0)
    model = build_model(MODEL, shape)
    costs = model_costs(model, MODEL)
    windows = TrainWindows(dataset, training.seed, 1_000, length_buckets=False)
    size = training.global_batch_size
    steps = training.epochs * windows.steps(size)
    return Run(
        job=job,
        rank=0,
        world_size=1,
        engine=start_engine(model, training, steps),
        costs=costs,
        batches=RankBatches(windows, size, 0, 1, read_event_weights(training, dataset)),
        items=CatalogueInputs(job, dataset, torch.device("cpu"), torch.float32),
        train_counts=torch.arange(NUM_ITEMS),
        validation=Validation([], []),
        total_steps=steps,
        targets_a_step=4.0 * size * 15 / NUM_WINDOWS,
    )


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    """A copy of the weights (ZeRO stages 0 to 2)."""
    return {name: w.detach().clone() for name, w in run.model.named_parameters()}

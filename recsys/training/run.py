"""What one rank holds while it trains, and how it gets there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.torch
import torch

from recsys.artifact import Artifact, open_artifact
from recsys.config import TrainingConfig
from recsys.models.backbone import load_text_encoder
from recsys.models.build import add_heads, build_model
from recsys.models.item_encoder import HybridItemEncoder
from recsys.models.recommender_model import RecommenderModel
from recsys.models.warm_start import load_initial_weights
from recsys.training.cursor import TrainWindows
from recsys.training.ingest import RankBatches, Windows
from recsys.training.job import (
    CatalogueInputs,
    TrainJob,
    Validation,
    make_augmenter,
    read_event_weights,
    read_train_counts,
    read_validation,
)
from recsys.training.poisson import PoissonWindows
from recsys.training.speed import Costs, model_costs
from recsys.training.values import read_value_facts
from recsys.training.zero import start_engine

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

REWORDING = 0x9A4A << 32
"""Keeps these draws apart from those of negatives by the same seed."""


@dataclass(frozen=True)
class Run:
    """What one rank holds while it trains; `engine` is DeepSpeed's, around the model."""

    job: TrainJob
    rank: int
    world_size: int
    engine: Any
    costs: Costs
    batches: RankBatches
    items: CatalogueInputs
    train_counts: torch.Tensor
    validation: Validation
    total_steps: int
    targets_a_step: float

    @property
    def model(self) -> RecommenderModel:
        """The model inside the engine."""
        return self.engine.module

    def seed(self, step: int) -> int:
        """Seed of what this rank alone draws in a step."""
        return self.shared_seed(0) + step * self.world_size + self.rank

    def shared_seed(self, step: int) -> int:
        """Seed of what all ranks draw alike in a step."""
        return self.job.training.seed * 1_000_003 + step

    def rewording(self, step: int) -> torch.Generator | None:
        """Draws which items a step of training reads in other words; all ranks draw alike."""
        if not self.engine.training:
            return None
        return torch.Generator().manual_seed(REWORDING + self.shared_seed(step))


def start_run(job: TrainJob) -> Run:
    """What this Ray Train worker holds."""
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    return make_run(job, context.get_world_rank(), context.get_world_size(), device)


def make_run(job: TrainJob, rank: int, world_size: int, device: torch.device) -> Run:
    """Build the model and the engine, and open the data; a process group must be there."""
    if device.type == "cpu":
        torch.set_num_threads(1)  # one worker a core; more threads would share it
    dataset = open_artifact(job.dataset, "dataset", check=False)
    windows = _windows(job.training, dataset)
    total_steps = job.training.epochs * windows.steps(job.training.global_batch_size)
    torch.manual_seed(job.training.seed)
    train_counts = read_train_counts(dataset)
    model = _build(job, dataset, train_counts)
    costs = model_costs(model, job.model)
    engine = start_engine(model, job.training, total_steps)
    items = CatalogueInputs(job, dataset, device, DTYPES[job.training.precision])
    return Run(
        job=job,
        rank=rank,
        world_size=world_size,
        engine=engine,
        costs=costs,
        batches=RankBatches(
            windows=windows,
            batch_size=job.training.global_batch_size,
            rank=rank,
            world_size=world_size,
            event_weights=read_event_weights(job.training, dataset),
            augmenter=make_augmenter(job.training, items),
        ),
        items=items,
        train_counts=train_counts,
        validation=read_validation(dataset, job.training.max_validation_rows, world_size),
        total_steps=total_steps,
        targets_a_step=_targets_a_step(dataset, job.training.global_batch_size / world_size),
    )


def _windows(training: TrainingConfig, dataset: Artifact) -> Windows:
    if training.privacy.is_on:
        return PoissonWindows(dataset, training)
    return TrainWindows(dataset, training.seed, training.shuffle_windows, training.length_buckets)


def _targets_a_step(dataset: Artifact, windows: float) -> float:
    """Targets that a rank has in a step of so many windows, on average."""
    facts = dataset.manifest.facts
    return max(1.0, windows * facts["train_targets"] / max(1, facts["rows"]["train"]))


def _build(job: TrainJob, dataset: Artifact, train_counts: torch.Tensor) -> RecommenderModel:
    tuned = job.model.tuning != "frozen"
    model = build_model(job.model, job.shape, load_text_encoder(job.model) if tuned else None)
    if isinstance(model.item_encoder, HybridItemEncoder):
        model.item_encoder.train_counts.copy_(train_counts)
    add_heads(model, job.training.heads, job.model, job.shape)
    if model.heads is not None and model.heads.rating is not None:
        model.heads.rating.set_facts(read_value_facts(dataset))
    if model.heads is not None and model.heads.probability is not None:
        model.heads.probability.item_counts.copy_(train_counts)
    if job.training.start_from:
        start = open_artifact(job.training.start_from, "checkpoint", check=False)
        load_initial_weights(model, start, dataset.manifest.config["prepare"]["events"])
    return model

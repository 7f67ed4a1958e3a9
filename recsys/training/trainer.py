"""The driver's side of training: cached text vectors, the Ray Train run, the artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import ray.train
import torch

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter, find_manifest
from recsys.config import ModelConfig, TrainingConfig
from recsys.data.tokenize import load_tokenizer
from recsys.models.backbone import load_text_encoder, merge_lora
from recsys.models.build import (
    ITEMS,
    LOG,
    SCORE,
    ModelShape,
    add_heads,
    build_model,
    save_model,
    text_size,
)
from recsys.models.recommender_model import RecommenderModel
from recsys.pretrained import backbone_digest
from recsys.training.guarantee import PRIVACY, promise_on
from recsys.training.job import TrainJob, check_training
from recsys.training.lease import Lease, hold
from recsys.training.loop import train_loop
from recsys.training.resume import NOT_IN_NAME, read_best
from recsys.training.text_cache import cache_text, open_start, read_whitening_of
from recsys.training.workers import run_workers


def train(model: ModelConfig, training: TrainingConfig, dataset: Artifact, output: str) -> Artifact:
    """Train on a dataset and write a `checkpoint` artifact.

    Shards for resume stay in `<output>-run`, in a folder named by config and dataset: the same
    call goes on where an interrupted one stopped, also with another number of workers.

    Raises:
        ValueError: an option does not fit the dataset or the model.
        LeaseError: another trainer is at work on the same run.
        ShardError: no checkpoint of the run is good.
    """
    parents = training_parents(model, training, dataset)  # of now: a path may change meanwhile
    job, run = make_job(model, training, dataset, f"{str(output).rstrip('/')}-run")
    with hold(run) as lease:
        fit(job, run, lease)
        return _publish(job, dataset, parents, run, output)


def make_job(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, run_uri: str
) -> tuple[TrainJob, str]:
    """What the workers are told, and the folder of `run_uri` that is this run's own.

    Raises:
        ValueError: an option does not fit the dataset or the model.
    """
    check_training(model, training, dataset, open_start(training))
    job = TrainJob(
        dataset=dataset.uri,
        model=model,
        training=training,
        shape=_shape(model, dataset),
        text_vectors=cache_text(model, training, dataset, run_uri),
    )
    name = _run_name(model, training, training_parents(model, training, dataset))
    return job, f"{run_uri}/{name}"


def fit(
    job: TrainJob, run: str, lease: Lease, watchers: Sequence[ray.train.UserCallback] = ()
) -> None:
    """Train in the folder `run`; `watchers` are told of every checkpoint."""
    settings = job.model_dump(mode="json")
    run_workers(train_loop, settings, job.training, run, lease, _score(job.training), watchers)


def training_parents(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact
) -> dict[str, str]:
    """The digests of all that a checkpoint is made from: a path may be given another content."""
    parents = {"dataset": dataset.digest}
    if training.start_from and (start := find_manifest(training.start_from)):
        parents["start_from"] = start.digest
    if model.item_features != "id" and (digest := backbone_digest(model.backbone)):
        parents["backbone"] = digest
    return parents


def _run_name(model: ModelConfig, training: TrainingConfig, parents: dict[str, str]) -> str:
    told = [model.model_dump_json(), training.model_dump_json(exclude=NOT_IN_NAME)]
    told += parents.values()
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _shape(model: ModelConfig, dataset: Artifact) -> ModelShape:
    prepare = dataset.manifest.config["prepare"]
    return ModelShape(
        num_items=dataset.manifest.facts["num_items"],
        max_history=prepare["max_history"],
        num_events=len(prepare["events"]),
        text_size=text_size(model),
    )


def _publish(
    job: TrainJob,
    dataset: Artifact,
    parents: dict[str, str],
    run: str,
    output: str,
) -> Artifact:
    state, steps = read_best(run, _score(job.training))
    writer = ArtifactWriter(output, "checkpoint")
    save_model(_trained(job, state), writer, load_tokenizer(job.model.backbone))
    writer.add_table(ITEMS, dataset.read_table("items.parquet", [schema.ITEM_ID]))
    writer.add_json(LOG, steps)
    config = {"model": job.model, "training": job.training}
    return writer.publish(
        {name: section.model_dump(mode="json") for name, section in config.items()},
        parents,
        _facts(job, dataset),
    )


def _facts(job: TrainJob, dataset: Artifact) -> dict[str, Any]:
    """Of a private run also what it promises to users."""
    facts = {"shape": job.shape.model_dump(), "prepare": dataset.manifest.config["prepare"]}
    promise = promise_on(job.training, dataset)
    return facts if promise is None else facts | {PRIVACY: promise.model_dump()}


def _score(training: TrainingConfig) -> str | None:
    """What the best epoch is chosen by. Of a private run it is the last: a choice by validation
    rows would tell of those users, and no epsilon counts it."""
    return None if training.privacy.is_on else SCORE


def _trained(job: TrainJob, state: dict[str, torch.Tensor]) -> RecommenderModel:
    """The model as it serves: float32, LoRA merged, the text encoder in place."""
    text = None if job.model.item_features == "id" else load_text_encoder(job.model)
    frozen = job.model.tuning == "frozen"
    model = build_model(job.model, job.shape, None if frozen else text)
    add_heads(model, job.training.heads, job.model, job.shape)
    model.load_state_dict(state)
    if text is not None:
        text.backbone = merge_lora(text.backbone)
        if job.text_vectors and job.model.whiten:
            text.set_whitening(*read_whitening_of(job.text_vectors))
    model.text_encoder = text
    return model

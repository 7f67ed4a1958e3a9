"""The stages with their places: which artifacts each reads and writes, and when it may be left out.

An artifact is kept when it was made with the same config from the same parents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ray_jobs.command import Command
from ray_jobs.user_key import read_user_key
from recsys.artifact import Artifact, find_manifest, open_artifact
from recsys.config import ModelConfig
from recsys.data.prepare import Before, input_fingerprints
from recsys.data.prepare import prepare as prepare_dataset
from recsys.eval.baselines import id_only_config
from recsys.eval.evaluate import evaluate as evaluate_index
from recsys.index.build import build_index
from recsys.index.complete import complete as complete_attributes
from recsys.training.trainer import train as train_model

log = logging.getLogger(__name__)


def prepare(command: Command) -> Artifact:
    """Raw tables -> dataset.

    Raises:
        ValueError: no `--data` was given.
    """
    if not command.data:
        raise ValueError("--data is missing: the directory or URI with interactions and items")
    job, before = command.job, _before(command)
    user_key = read_user_key(command.user_key_file)
    return _keep_or_make(
        command.place("dataset"),
        "dataset",
        {"prepare": job.prepare.model_dump(mode="json"), "backbone": job.model.backbone},
        input_fingerprints(command.data, before, user_key),
        lambda output: prepare_dataset(
            job.prepare, job.model.backbone, command.data, output, before, user_key
        ),
    )


def _before(command: Command) -> Before | None:
    """The dataset that the new one follows.

    Raises:
        ValueError: `--incremental` without `--previous`, or both runs share one place.
    """
    if not command.previous:
        if command.incremental:
            raise ValueError("--incremental needs --previous: the dataset to go on from")
        return None
    if command.previous.rstrip("/") == command.place("dataset"):
        raise ValueError(f"--previous {command.previous} would be overwritten: change --output")
    return Before(open_artifact(command.previous, "dataset"), command.incremental)


def train(command: Command) -> Artifact:
    """Dataset -> checkpoint."""
    return _train(command, command.job.model, "checkpoint")


def train_id_only(command: Command) -> Artifact:
    """Dataset -> checkpoint of the ID-only baseline."""
    return _train(command, id_only_config(command.job.model), "id_only")


def _train(command: Command, model: ModelConfig, place: str) -> Artifact:
    dataset = open_artifact(command.place("dataset"), "dataset")
    training = command.job.training
    config = {"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    return _keep_or_make(
        command.place(place),
        "checkpoint",
        config,
        {"dataset": dataset.digest},
        lambda output: train_model(model, training, dataset, output),
    )


def index(command: Command) -> Artifact:
    """Checkpoint and dataset -> index."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    checkpoint = open_artifact(command.place("checkpoint"), "checkpoint")
    return _keep_or_make(
        command.place("index"),
        "index",
        {"index": command.job.index.model_dump(mode="json")},
        {"dataset": dataset.digest, "checkpoint": checkpoint.digest},
        lambda output: build_index(command.job.index, dataset, checkpoint, output),
    )


def complete(command: Command) -> Artifact:
    """Dataset -> attributes, those of its items that were given and those that could be filled."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    model, min_precision = command.job.model, command.job.completion.min_precision
    return _keep_or_make(
        command.place("attributes"),
        "attributes",
        {"model": model.model_dump(mode="json"), "min_precision": min_precision},
        {"dataset": dataset.digest},
        lambda output: complete_attributes(
            dataset, model, command.job.index, min_precision, output
        ),
    )


def evaluate(command: Command) -> Artifact:
    """Index, checkpoint and dataset -> report, with the ID-only baseline where the config asks."""
    parents = {
        "dataset": open_artifact(command.place("dataset"), "dataset"),
        "checkpoint": open_artifact(command.place("checkpoint"), "checkpoint"),
        "index": open_artifact(command.place("index"), "index"),
    }
    if command.job.evaluation.id_baseline:
        parents["id_only"] = train_id_only(command)
    return _keep_or_make(
        command.place("report"),
        "report",
        {"evaluation": command.job.evaluation.model_dump(mode="json")},
        {name: artifact.digest for name, artifact in parents.items()},
        lambda output: evaluate_index(command.job.evaluation, output=output, **parents),
    )


def pipeline(command: Command) -> Artifact:
    """Prepare to evaluate; returns the report."""
    for stage in (prepare, train, index):
        stage(command)
    return evaluate(command)


def _keep_or_make(
    place: str, kind: str, config: dict, parents: dict[str, str], make: Callable[[str], Artifact]
) -> Artifact:
    found = find_manifest(place)
    if found and (found.kind, found.config, found.parents) == (kind, config, parents):
        log.info("%s: kept, it was made with the same config from the same parents", place)
        return open_artifact(place, kind)
    log.info("%s: making it", place)
    return make(place)

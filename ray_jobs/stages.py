"""The stages with their places: which artifacts each reads and writes, and when it may be left out.

An artifact is kept when it was made with the same config from the same parents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ray_jobs.command import Command
from recsys.artifact import Artifact, find_manifest, open_artifact
from recsys.config import ModelConfig
from recsys.data.prepare import input_fingerprints
from recsys.data.prepare import prepare as prepare_dataset
from recsys.eval.baselines import id_only_config
from recsys.eval.evaluate import evaluate as evaluate_index
from recsys.index.build import build_index
from recsys.training.trainer import train as train_model

log = logging.getLogger(__name__)


def prepare(command: Command) -> Artifact:
    """Raw tables -> dataset.

    Raises:
        ValueError: no `--data` was given.
    """
    if not command.data:
        raise ValueError("--data is missing: the directory or URI with interactions and items")
    config = {
        "prepare": command.job.prepare.model_dump(mode="json"),
        "backbone": command.job.model.backbone,
    }
    return _keep_or_make(
        command.place("dataset"),
        "dataset",
        config,
        input_fingerprints(command.data),
        lambda output: prepare_dataset(
            command.job.prepare, command.job.model.backbone, command.data, output
        ),
    )


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

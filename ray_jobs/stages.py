"""The stages with their places: which artifacts each reads and writes, and when it may be left out.

An artifact is kept when it was made with the same config from the same parents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ray_jobs.command import Command
from ray_jobs.user_key import read_user_key
from recsys.artifact import Artifact, find_manifest, open_artifact
from recsys.config import IndexConfig, ModelConfig, SweepConfig, TrainingConfig
from recsys.data.prepare import Before, input_fingerprints
from recsys.data.prepare import prepare as prepare_dataset
from recsys.eval.baselines import SEQUENCE_NAMES, sequence_config
from recsys.eval.evaluate import evaluate as evaluate_index
from recsys.eval.explain import explain as explain_index
from recsys.eval.search import evaluate_search as evaluate_searcher
from recsys.eval.transfer import transfer_checkpoint
from recsys.index.build import build_index, index_parents, index_settings
from recsys.index.complete import complete as complete_attributes
from recsys.training.distill import distill as distill_checkpoint
from recsys.training.distill import distilled_settings
from recsys.training.pretrain import pretrain as pretrain_backbone
from recsys.training.pretrain import pretrain_parents, pretrain_settings
from recsys.training.sweep import sweep as sweep_settings
from recsys.training.trainer import train as train_model
from recsys.training.trainer import training_parents

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
    return _train(command, command.job.model, command.job.training, "checkpoint")


def _train(command: Command, model: ModelConfig, training: TrainingConfig, place: str) -> Artifact:
    dataset = open_artifact(command.place("dataset"), "dataset")
    config = {"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    return _keep_or_make(
        command.place(place),
        "checkpoint",
        config,
        training_parents(model, training, dataset),
        lambda output: train_model(model, training, dataset, output),
    )


def sweep(command: Command, space: SweepConfig) -> Artifact:
    """Dataset -> sweep: the best settings of model and training that were found."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    job = command.job
    told = {"sweep": space, "model": job.model, "training": job.training}
    return _keep_or_make(
        command.place("sweep"),
        "sweep",
        {name: section.model_dump(mode="json") for name, section in told.items()},
        {"dataset": dataset.digest},
        lambda output: sweep_settings(space, job.model, job.training, dataset, output),
    )


def index(command: Command) -> Artifact:
    """Checkpoint and dataset -> index."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    checkpoint = open_artifact(command.place("checkpoint"), "checkpoint")
    return _index(command, "index", command.job.index, dataset, checkpoint)


def _index(
    command: Command, place: str, config: IndexConfig, dataset: Artifact, checkpoint: Artifact
) -> Artifact:
    search = command.job.search
    return _keep_or_make(
        command.place(place),
        "index",
        index_settings(config, search),
        index_parents(search, dataset, checkpoint),
        lambda output: build_index(config, dataset, checkpoint, output, search),
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
    """Index, checkpoint and dataset -> report; sequence baselines are trained for it."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    checkpoint = open_artifact(command.place("checkpoint"), "checkpoint")
    index = open_artifact(command.place("index"), "index")
    job = command.job
    sequences = {
        name: _train(command, *sequence_config(name, job.model, job.training), name)
        for name in job.evaluation.baselines
        if name in SEQUENCE_NAMES
    }
    return _evaluate(command, "report", dataset, checkpoint, index, sequences)


def _evaluate(
    command: Command,
    place: str,
    dataset: Artifact,
    checkpoint: Artifact,
    index: Artifact,
    sequences: dict[str, Artifact],
) -> Artifact:
    config = command.job.evaluation
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index, **sequences}
    return _keep_or_make(
        command.place(place),
        "report",
        {"evaluation": config.model_dump(mode="json")},
        {name: artifact.digest for name, artifact in parents.items()},
        lambda output: evaluate_index(config, dataset, checkpoint, index, output, sequences),
    )


def evaluate_search(command: Command) -> Artifact:
    """Index, checkpoint and dataset -> report on search."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    checkpoint = open_artifact(command.place("checkpoint"), "checkpoint")
    index = open_artifact(command.place("index"), "index")
    config = command.job.search
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index}
    return _keep_or_make(
        command.place("search_report"),
        "report",
        {"search": config.model_dump(mode="json")},
        {name: artifact.digest for name, artifact in parents.items()},
        lambda output: evaluate_searcher(config, dataset, checkpoint, index, output),
    )


def pipeline(command: Command) -> Artifact:
    """Prepare to evaluate; returns the report."""
    for stage in (prepare, train, index):
        stage(command)
    return evaluate(command)


def explain(command: Command) -> Artifact:
    """Index, checkpoint and dataset -> explanations."""
    parents = {
        kind: open_artifact(command.place(kind), kind)
        for kind in ("dataset", "checkpoint", "index")
    }
    return _keep_or_make(
        command.place("explanations"),
        "explanations",
        {"evaluation": command.job.evaluation.model_dump(mode="json")},
        {name: artifact.digest for name, artifact in parents.items()},
        lambda output: explain_index(command.job.evaluation, output=output, **parents),
    )


def transfer(command: Command) -> Artifact:
    """A checkpoint of another dataset -> checkpoint, index and report of this one.

    Raises:
        ValueError: no `--checkpoint` was given.
    """
    if not command.checkpoint:
        raise ValueError("--checkpoint is missing: one that was made from another dataset")
    dataset = open_artifact(command.place("dataset"), "dataset")
    foreign = open_artifact(command.checkpoint, "checkpoint")
    checkpoint = _keep_or_make(
        command.place("transfer/checkpoint"),
        "checkpoint",
        foreign.manifest.config,
        {"dataset": dataset.digest, "start_from": foreign.digest},
        lambda output: transfer_checkpoint(foreign, dataset, output),
    )
    # Transitions would be learned from this dataset's users, who are to be strangers.
    config = command.job.index.model_copy(update={"transitions": 0})
    index = _index(command, "transfer/index", config, dataset, checkpoint)
    return _evaluate(command, "transfer/report", dataset, checkpoint, index, {})


def pretrain(command: Command) -> Artifact:
    """Dataset -> backbone."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    model, config = command.job.model, command.job.pretraining
    return _keep_or_make(
        command.place("backbone"),
        "backbone",
        pretrain_settings(model, config),
        pretrain_parents(model, dataset),
        lambda output: pretrain_backbone(model, config, dataset, output),
    )


def distill(command: Command) -> Artifact:
    """Dataset and checkpoint -> checkpoint, index and report of a smaller language model."""
    dataset = open_artifact(command.place("dataset"), "dataset")
    teacher = open_artifact(command.place("checkpoint"), "checkpoint")
    config = command.job.distillation
    student = _keep_or_make(
        command.place("student/checkpoint"),
        "checkpoint",
        distilled_settings(config, teacher),
        {"dataset": dataset.digest, "teacher": teacher.digest},
        lambda output: distill_checkpoint(config, dataset, teacher, output),
    )
    index = _index(command, "student/index", command.job.index, dataset, student)
    return _evaluate(command, "student/report", dataset, student, index, {})


def _keep_or_make(
    place: str, kind: str, config: dict, parents: dict[str, str], make: Callable[[str], Artifact]
) -> Artifact:
    found = find_manifest(place)
    if found and (found.kind, found.config, found.parents) == (kind, config, parents):
        log.info("%s: kept, it was made with the same config from the same parents", place)
        return open_artifact(place, kind)
    log.info("%s: making it", place)
    return make(place)

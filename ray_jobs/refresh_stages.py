"""The daily loop up to the verdict: new events, a candidate that goes on from the live model."""

from __future__ import annotations

import logging
from dataclasses import replace

from ray_jobs import stages
from ray_jobs.command import Command
from ray_jobs.refresh_command import Arguments
from recsys.artifact import Artifact, open_artifact
from recsys.config import JobConfig, RefreshConfig
from recsys.data.feedback import take_in_feedback
from recsys.data.incremental import read_inputs
from recsys.data.sources import list_files
from recsys.eval.paired import Model, judge_candidate
from recsys.registry import LIVE, Registry

log = logging.getLogger(__name__)


def refresh(arguments: Arguments, command: Command) -> Artifact:
    """Take in feedback, prepare, train from the live weights, index, and judge; the verdict.

    The candidate reads all windows, old and new (full replay), so nothing is forgotten; what is
    saved is the epochs, not the reading.

    Raises:
        ValueError: nothing is live, or nothing is new.
    """
    live = _live_model(Registry(arguments.registry))
    if arguments.feedback:
        taken = take_in_feedback(arguments.feedback, command.data)
        log.info("%s: %d new files", arguments.feedback, len(taken))
    _check_news(command)
    refresh = arguments.refresh
    command = replace(command, job=_going_on_from(live, command.job, refresh))
    dataset = stages.prepare(command)
    candidate = stages.train(command), stages.index(command)
    return judge_candidate(
        dataset, live, candidate, command.job.evaluation, refresh.gate, command.place("gate")
    )


def _live_model(registry: Registry) -> Model:
    alias = registry.alias(LIVE)
    if alias is None:
        raise ValueError(f"nothing is live in {registry.uri}: train and promote a first model")
    return registry.open(registry.version(alias.version))


def _check_news(command: Command) -> None:
    seen = set(read_inputs(open_artifact(command.previous, "dataset")).files)
    if seen >= set(list_files(command.data, "interactions")):
        raise ValueError(
            f"{command.data} has no interactions that are newer than {command.previous}: is the "
            "feedback log written, and is --feedback its place?"
        )


def _going_on_from(live: Model, job: JobConfig, refresh: RefreshConfig) -> JobConfig:
    changes = {
        "start_from": live[0].uri,
        "epochs": refresh.epochs,
        "learning_rate": refresh.learning_rate,
    }
    return job.model_copy(update={"training": job.training.model_copy(update=changes)})

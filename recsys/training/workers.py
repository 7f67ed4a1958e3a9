"""A Ray Train run: its workers, where its shards go, which of them are kept, what it survives."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import ray.train
import ray.train.torch

from recsys.config import TrainingConfig
from recsys.storage import (
    StorageError,
    filesystem,
    has_file,
    retried,
    steady_filesystem,
    storage_errors,
    write_bytes,
)
from recsys.training.lease import Lease
from recsys.training.retention import delete_obsolete

log = logging.getLogger(__name__)

START_TRIES = 30
"""How often workers are started, a minute each, before a run gives up: half an hour for machines
to come."""
SETTINGS = "run.json"
"""What the run's workers were told: its config, dataset and shapes."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own list of a run's checkpoints."""


def run_workers(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    config: TrainingConfig,
    run: str,
    lease: Lease,
    score: str | None = None,
    watchers: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Run `loop(settings)` in every worker; checkpoints lie in the folder `run`.

    A run of the same folder that was interrupted is gone on with. The newest checkpoints are kept,
    and those that are best by the metric `score`. `watchers` are told of each.

    Raises:
        TrainingFailedError: workers failed more than `config.max_failures` times.
    """
    place, _, name = run.rpartition("/")
    forget_snapshot(run)
    write_bytes(f"{run}/{SETTINGS}", json.dumps(settings, indent=2).encode())
    # Ray Train writes by itself, where no loop of ours would try again.
    fs, path = steady_filesystem(place)
    trainer = ray.train.torch.TorchTrainer(
        loop,
        train_loop_config=settings,
        torch_config=process_group(config),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.num_workers, use_gpu=config.use_gpu
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=fs,
            failure_config=survival(config),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            callbacks=[Keeper(run, score, lease), *watchers],
        ),
    )
    trainer.fit()


def process_group(config: TrainingConfig) -> ray.train.torch.TorchConfig:
    """How workers talk to one another, and how long one waits for another before it fails."""
    return ray.train.torch.TorchConfig(
        backend="nccl" if config.use_gpu else "gloo", timeout_s=config.collective_timeout_s
    )


def survival(config: TrainingConfig) -> ray.train.FailureConfig:
    """What a run survives; machines that the provider takes back count for nothing.

    Ray Train's relaxed collectives stay off: they would let a checkpoint pass for whole that lacks
    the shards of the ranks that went.
    """
    return ray.train.FailureConfig(
        max_failures=config.max_failures,
        controller_failure_limit=START_TRIES,
        max_preemption_failures=-1,
    )


def forget_snapshot(run: str) -> None:
    """Delete Ray Train's list of the run's checkpoints, so that nothing in it can stop a run.

    It is overwritten in place, so that a kill leaves half of it; and Ray refuses it when it is of
    another release of Ray or names a folder that is gone. What is in the run's folder decides.
    """
    fs, root = filesystem(run)
    with storage_errors(run):
        if has_file(f"{run}/{SNAPSHOT}"):
            retried(lambda: fs.delete_file(f"{root}/{SNAPSHOT}"))


class Keeper(ray.train.UserCallback):
    """After every checkpoint, on Ray's controller: is the run still ours, and what may go?"""

    def __init__(self, run: str, score: str | None, lease: Lease) -> None:
        self._run, self._score, self._lease = run, score, lease

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
        """Called by Ray once all ranks have uploaded.

        Raises:
            LeaseError: another trainer has taken the run over; this one stops.
        """
        try:
            self._lease.check()
        except StorageError as error:
            log.warning("the lease could not be read: %s", error)
        if checkpoint is not None:
            delete_obsolete(self._run, PurePosixPath(checkpoint.path).name, self._score)

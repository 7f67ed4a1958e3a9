"""What every job's command line has in common: config, places, a Ray to run on, the last line."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError

from recsys.artifact import Artifact
from recsys.config import JobConfig, StorageConfig, describe, load_config

LOCAL_CPUS = 4
"""Least logical CPUs of a Ray started here: two trainers and room for data tasks beside them."""
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "0" if sys.stdout.isatty() else "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # which says everything twice
    "POLARS_MAX_THREADS": "1",  # a task has a core; Ray runs as many tasks as there are
}


@dataclass(frozen=True)
class Command:
    """A job's command line."""

    config: Path
    """TOML file with the run's settings."""
    output: str = ""
    """Directory or URI under which all artifacts of the run are; by default
    outputs/<config name>."""
    data: str = ""
    """Directory or URI with interactions and items (only prepare and pipeline read it)."""
    previous: str = ""
    """Dataset of the run before: its items keep their indexes (prepare and pipeline)."""
    incremental: bool = False
    """Take over the events of `previous` and read only files that are new since."""
    checkpoint: str = ""
    """Checkpoint that comes from another dataset (only transfer reads it)."""
    user_key_file: Path | None = None
    """File with the key that makes pseudonyms of user ids; else RECSYS_USER_KEY, else no key."""
    job: Annotated[JobConfig, tyro.conf.arg(name="")] = field(default_factory=JobConfig)
    """The settings themselves; flags go before the file."""

    def place(self, name: str) -> str:
        """Where the artifact `name` of this run is."""
        return f"{(self.output or f'outputs/{self.config.stem}').rstrip('/')}/{name}"


def parse(description: str, argv: list[str]) -> Command:
    """The command line over the config file it names.

    Raises:
        ValueError: the file does not fit, or a flag's value is out of bounds.
    """
    path = _config_path(argv)
    default = Command(config=Path(path), job=load_config(path)) if path else None
    try:
        command = tyro.cli(Command, description=description, args=argv, default=default)
    except ValidationError as error:
        raise ValueError(describe(error, JobConfig)) from error
    assert command is not None
    return command


def _config_path(argv: list[str]) -> str | None:
    for flag, value in zip(argv, [*argv[1:], None], strict=False):
        if flag == "--config":
            return value
        if flag.startswith("--config="):
            return flag.removeprefix("--config=")
    return None


def run(description: str, stage: str) -> None:
    """Parse the command line, run one of `stages` on Ray, and print the artifact's path last."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        command = parse(description, sys.argv[1:])
        artifact = on_ray(command.job.storage, lambda: _run_stage(stage, command))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(artifact.uri, flush=True)


def _run_stage(stage: str, command: Command) -> Artifact:
    # Only now: torch and DeepSpeed take seconds, before which a wrong flag should be told.
    stages = importlib.import_module("ray_jobs.stages")
    return getattr(stages, stage)(command)


def on_ray(storage: StorageConfig, work: Callable[[], Artifact]) -> Artifact:
    """Work on the cluster this job was submitted to, or on a Ray for this process alone."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Only now: Ray reads its environment when it is imported.
    ray = importlib.import_module("ray")
    importlib.import_module("ray.data")  # sets its logger's level when it is imported
    configure_storage = importlib.import_module("recsys.storage").configure_storage

    def set_up_worker() -> None:
        configure_storage(storage)
        # Ray Train frees what a stopped trial held by Ray's state API, which finds no cluster
        # of its own where a machine runs several.
        os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)

    configure_storage(storage)
    runtime_env = {"env_vars": QUIET, "worker_process_setup_hook": set_up_worker}
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.WARNING, runtime_env=runtime_env)
    else:
        cpus = max(LOCAL_CPUS, os.cpu_count() or 1)
        ray.init("local", num_cpus=cpus, logging_level=logging.WARNING, runtime_env=runtime_env)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells each plan at INFO
    try:
        return work()
    finally:
        # Workers' output is forwarded until here; nothing may follow the artifact's path.
        ray.shutdown()

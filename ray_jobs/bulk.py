"""What the jobs on all users and items have in common: a config file, a Ray, the last line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import tyro
from pydantic import ValidationError

from ray_jobs.command import on_ray
from recsys.artifact import Artifact
from recsys.config import StorageConfig, describe
from recsys.config.bulk import BulkConfig, HistoriesConfig, load_bulk


@dataclass(frozen=True, kw_only=True)
class BulkArguments:
    """Where things are, and how histories are read."""

    dataset: str
    """Directory or URI of the dataset artifact."""
    output: str
    """Directory or URI of the new artifact."""
    config: Path | None = None
    """TOML file with settings; flags go before it."""
    histories: HistoriesConfig = field(default_factory=HistoriesConfig)
    """How histories are read."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """How object stores are reached."""


A = TypeVar("A", bound=BulkArguments)


def parse(kind: type[A], description: str, argv: list[str]) -> A:
    """The command line over the config file that it names.

    Raises:
        ValueError: the file does not fit, or a flag's value is out of bounds.
    """
    try:
        given = tyro.cli(kind, description=description, args=argv)
        if given.config is None:
            return given
        read = load_bulk(given.config)
        sections = {n: getattr(read, n) for n in BulkConfig.model_fields if hasattr(given, n)}
        return tyro.cli(
            kind, description=description, args=argv, default=replace(given, **sections)
        )
    except ValidationError as error:
        raise ValueError(describe(error, BulkConfig)) from error


def run(kind: type[A], description: str | None, work: Callable[[A], Artifact]) -> None:
    """Parse the command line, work on Ray, and print the artifact's path last."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        arguments = parse(kind, description or "", sys.argv[1:])
        artifact = on_ray(arguments.storage, lambda: work(arguments))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(artifact.uri, flush=True)

"""The command line of the daily loop, what it prints, and the promotion at its end."""

from __future__ import annotations

import importlib
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ray_jobs.command import Command, on_ray
from recsys.config import JobConfig, RefreshConfig, load_config
from recsys.registry import AliasName

STOPPED = 3
"""Exit code where the gate or the canary stopped a candidate: no error, and not live."""


@dataclass(frozen=True)
class Arguments:
    """Where the loop reads and writes."""

    config: Path
    """TOML file with the settings of the runs."""
    data: str
    """Directory or URI with interactions and items."""
    previous: str
    """Dataset of the run before."""
    output: str
    """Directory or URI of this run; every run needs one of its own."""
    registry: str
    """Registry whose live model is gone on from, and where the candidate is promoted."""
    feedback: str = ""
    """Directory or URI of the service's feedback log, unless it is `data` itself."""
    full: bool = False
    """Read all files again, as after some were rewritten; else only new ones."""
    user_key_file: Path | None = None
    """File with the key that makes pseudonyms of user ids; else RECSYS_USER_KEY, else no key."""
    canary: str = ""
    """TOML file of the service's experiments, or its URI: a candidate that passed goes live by a
    canary. Without it nobody gets it but by an experiment."""
    alias: AliasName = "candidate"
    """What a candidate that passed becomes: 'candidate' serves nobody but an experiment."""
    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    """The settings of the loop."""
    wait_s: float = 30.0
    """Seconds from promotion until all replicas have it."""

    @property
    def command(self) -> Command:
        """The stages' command line."""
        return Command(
            config=self.config,
            output=self.output,
            data=self.data,
            previous=self.previous,
            incremental=not self.full,
            user_key_file=self.user_key_file,
            job=load_config(self.config),
        )


def run(arguments: Arguments) -> int:
    """Make and judge a candidate, and promote it if it passed; returns the exit code.

    Raises:
        ValueError: the split is not by time; else see `refresh_stages.refresh`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    command = arguments.command
    _check_split(command.job)
    if arguments.canary and arguments.alias != "candidate":
        raise ValueError(f"--canary needs --alias candidate, not {arguments.alias}")
    # Only now: Ray reads its environment when it is imported, and torch takes seconds.
    verdict = on_ray(command.job.storage, lambda: _stages().refresh(arguments, command))
    told = verdict.read_json("gate.json")
    for reason in told["reasons"]:
        print(f"stopped by {reason}", file=sys.stderr)
    if told["passed"]:
        _promote(arguments, command)
    print(verdict.uri, flush=True)
    if told["passed"] and arguments.canary:
        return _watch(arguments)
    return 0 if told["passed"] else STOPPED


def _check_split(job: JobConfig) -> None:
    if job.prepare.split.strategy != "time":
        raise ValueError(
            f"prepare.split.strategy is '{job.prepare.split.strategy}': a loop needs 'time', so "
            "that neither model has seen the newest events, which both are judged by"
        )


def _stages():
    return importlib.import_module("ray_jobs.refresh_stages")


def _promote(arguments: Arguments, command: Command) -> None:
    promote = importlib.import_module("ray_jobs.promote")
    places = command.place("checkpoint"), command.place("index")
    made = promote.run(
        promote.Arguments(arguments.registry, *places, arguments.alias, arguments.wait_s)
    )
    print(f"{made.version} is {arguments.alias}", file=sys.stderr)


def _watch(arguments: Arguments) -> int:
    canary = importlib.import_module("ray_jobs.canary")
    log = arguments.feedback or arguments.data
    places = (arguments.registry, arguments.canary, log)
    return canary.run(canary.Arguments(*places, arguments.refresh.canary))

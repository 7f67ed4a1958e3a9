"""Bring the registry's candidate to all users step by step, or back to none if it does harm.

What was begun goes on after a crash. The exit code is 0 where the candidate became live and 3 where
it was rolled back; then the reason is printed.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from pydantic import ValidationError

from recsys.config import CanaryConfig, describe
from recsys.experiments.canary.run import Places, run_canary

ROLLED_BACK = 3
"""Exit code where a candidate went back: no error, and not live."""


@dataclass(frozen=True)
class Arguments:
    """Where the service reads and writes. Needs the extra `eval`."""

    registry: str
    """Directory or URI of the registry that the service follows."""
    experiments: str
    """TOML file of the service's experiments, or its URI."""
    feedback: str
    """Directory or URI of the service's feedback log."""
    canary: Annotated[CanaryConfig, tyro.conf.arg(name="")] = field(default_factory=CanaryConfig)
    """The settings."""


def run(arguments: Arguments) -> int:
    """Watch it to its end, and tell how that was; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    places = Places(arguments.registry, arguments.feedback, arguments.experiments)
    state = run_canary(places, arguments.canary)
    print(f"{state.candidate} was {state.outcome}{': ' * bool(state.reason)}{state.reason}")
    return 0 if state.outcome == "promoted" else ROLLED_BACK


if __name__ == "__main__":
    try:
        sys.exit(run(tyro.cli(Arguments, description=__doc__)))
    except ValidationError as error:
        sys.exit(f"error: {describe(error, CanaryConfig)}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

"""Go back to the model that was live before."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import tyro

from recsys.registry import Alias, AliasName, Registry


@dataclass(frozen=True)
class Arguments:
    """Which registry."""

    registry: str
    """Directory or URI of the registry that the service follows."""
    alias: AliasName = "live"
    """What goes back."""
    wait_s: float = 5.0
    """Seconds from now until all replicas answer with it together."""


def run(arguments: Arguments) -> Alias:
    """Move the alias back."""
    return Registry(arguments.registry).back(arguments.alias, time.time(), arguments.wait_s)


if __name__ == "__main__":
    try:
        made = run(tyro.cli(Arguments, description=__doc__))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"{made.version} (before: {made.previous or 'nothing'}), generation {made.generation}")

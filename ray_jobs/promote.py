"""Make a checkpoint, its index and perhaps a final ranker the live model, which replicas follow."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import tyro

from recsys.artifact import open_artifact
from recsys.registry import Alias, AliasName, Registry
from recsys.serving.release import register_release


@dataclass(frozen=True)
class Arguments:
    """What becomes live, and where."""

    registry: str
    """Directory or URI of the registry that the service follows."""
    checkpoint: str
    """Directory or URI of a checkpoint artifact. Every run needs a place of its own: what is live
    must not be overwritten."""
    index: str
    """Directory or URI of the index made from it."""
    alias: AliasName = "live"
    """What it becomes; 'candidate' is registered and named, and serves nobody."""
    wait_s: float = 30.0
    """Seconds from now until all replicas answer with it together; they load it meanwhile."""
    ranker: str = ""
    """Directory or URI of a final ranker of search fitted to that index. Without one the search
    alone orders, even where the model before had one: it would not fit another index."""


def run(arguments: Arguments) -> Alias:
    """Check the model, register it, and move the alias."""
    checkpoint = open_artifact(arguments.checkpoint, "checkpoint")
    index = open_artifact(arguments.index, "index")
    ranker = open_artifact(arguments.ranker, "ranker") if arguments.ranker else None
    registry = Registry(arguments.registry)
    version = register_release(registry, checkpoint, index, ranker, time.time())
    return registry.point(arguments.alias, version.name, time.time(), arguments.wait_s)


if __name__ == "__main__":
    try:
        made = run(tyro.cli(Arguments, description=__doc__))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"{made.version} (before: {made.previous or 'nothing'}), generation {made.generation}")

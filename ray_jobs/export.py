"""Write a checkpoint as a folder in Hugging Face's layout, with a model card."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import tyro

from recsys.artifact import open_artifact
from recsys.training.export import export


@dataclass(frozen=True)
class Arguments:
    """What is written, and where."""

    checkpoint: str
    """Directory or URI of a checkpoint artifact."""
    output: str
    """Empty or new directory or URI."""


def run(arguments: Arguments) -> str:
    """Export the checkpoint; returns the place."""
    export(open_artifact(arguments.checkpoint, "checkpoint"), arguments.output)
    return arguments.output


if __name__ == "__main__":
    try:
        print(run(tyro.cli(Arguments, description=__doc__)))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

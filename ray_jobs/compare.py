"""Compare the models of two reports over the same rows: which is better, and how sure that is."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import tyro

from recsys.artifact import Artifact, open_artifact
from recsys.eval.compare import Side, compare


@dataclass(frozen=True)
class Arguments:
    """Two reports."""

    first: str
    """Directory or URI of the report of model A."""
    second: str
    """Directory or URI of the report of model B; may be the first, for two of its models."""
    output: str
    """Directory or URI of the comparison."""
    first_model: str = "model"
    """Which model of the first report is A, such as popularity."""
    second_model: str = "model"
    """Which model of the second report is B."""


def run(arguments: Arguments) -> Artifact:
    """Write the comparison and print the verdict."""
    sides = (
        Side(open_artifact(arguments.first, "report"), arguments.first_model),
        Side(open_artifact(arguments.second, "report"), arguments.second_model),
    )
    for name, side in zip("AB", sides, strict=True):
        print(f"{name}: {side.model} of {side.report.uri}")
    made = compare(*sides, arguments.output)
    print("\n".join(made.read_json("comparison.json")["verdicts"]))
    return made


if __name__ == "__main__":
    try:
        print(run(tyro.cli(Arguments, description=__doc__)).uri, flush=True)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

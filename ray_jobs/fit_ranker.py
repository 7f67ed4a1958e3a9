"""Fit the final ranker of search to judged queries, or to a log of what was shown and clicked."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated

import tyro
from pydantic import ValidationError

from recsys.artifact import Artifact, open_artifact
from recsys.config import RankerConfig, describe


@dataclass(frozen=True)
class Arguments:
    """What is ranked, and where the ranker goes."""

    dataset: str
    """Directory or URI of the dataset artifact."""
    checkpoint: str
    """Directory or URI of the checkpoint artifact."""
    index: str
    """Directory or URI of the index made from both, with search in it."""
    output: str
    """Directory or URI of the ranker artifact."""
    ranker: Annotated[RankerConfig, tyro.conf.arg(name="")]
    """What it is learned from: `--queries` or `--shown`."""


def run(arguments: Arguments) -> Artifact:
    """Fit the ranker and write it."""
    from recsys.engine.fit_ranker import fit_ranker_artifact

    dataset = open_artifact(arguments.dataset, "dataset")
    checkpoint = open_artifact(arguments.checkpoint, "checkpoint")
    index = open_artifact(arguments.index, "index")
    parents = (dataset, checkpoint, index)
    return fit_ranker_artifact(arguments.ranker, *parents, arguments.output, now=time.time())


if __name__ == "__main__":
    try:
        made = run(tyro.cli(Arguments, description=__doc__))
    except ValidationError as error:
        sys.exit(f"error: {describe(error, RankerConfig)}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(made.uri)

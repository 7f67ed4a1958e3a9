"""Fit the final ranker of search to judged queries, or to a log of what was shown and clicked."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import tyro

from recsys.artifact import Artifact, open_artifact


@dataclass(frozen=True)
class Arguments:
    """What is ranked, and what it is learned from: `--queries` or `--shown`."""

    dataset: str
    """Directory or URI of the dataset artifact."""
    checkpoint: str
    """Directory or URI of the checkpoint artifact."""
    index: str
    """Directory or URI of the index made from both, with search in it."""
    output: str
    """Directory or URI of the ranker artifact."""
    queries: str = ""
    """Parquet file with columns `query`, `item_id` and perhaps `relevance`, as the index's."""
    shown: str = ""
    """Parquet file with a row for each item shown: `request_id`, `query`, `item_id`, `position`
    from 1, and `clicked`, 0 or 1; perhaps `history`, a list of item ids."""
    added_column: str = ""
    """Number column of the items: when each was added, in Unix seconds."""
    cross_model: str = ""
    """Causal language model that reads query, history and titles, named as `model.backbone` is."""
    num_threads: int = 1
    """Threads of LightGBM."""
    seed: int = 0
    """Of the trees."""


def run(arguments: Arguments) -> Artifact:
    """Fit the ranker and write it."""
    from recsys.engine.fit_ranker import RankerSettings, fit_ranker_artifact

    given = vars(arguments)
    source = RankerSettings(**{name: given[name] for name in RankerSettings.__dataclass_fields__})
    dataset = open_artifact(arguments.dataset, "dataset")
    checkpoint = open_artifact(arguments.checkpoint, "checkpoint")
    index = open_artifact(arguments.index, "index")
    parents = (dataset, checkpoint, index)
    return fit_ranker_artifact(source, *parents, arguments.output, now=time.time())


if __name__ == "__main__":
    try:
        made = run(tyro.cli(Arguments, description=__doc__))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(made.uri)

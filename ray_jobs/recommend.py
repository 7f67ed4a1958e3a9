"""Recommend to all users of a dataset, or to some, and write it as Parquet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ray_jobs.bulk import BulkArguments, run
from ray_jobs.user_key import read_user_key
from recsys.artifact import Artifact, open_artifact
from recsys.config.bulk import RecommendConfig


@dataclass(frozen=True, kw_only=True)
class Arguments(BulkArguments):
    """What recommends, and to whom."""

    checkpoint: str
    """Directory or URI of the checkpoint artifact."""
    index: str
    """Directory or URI of the index made from it and the dataset."""
    users: Path | None = None
    """File with one user id a line; without it all users."""
    user_key_file: Path | None = None
    """With `--users`: the key of the dataset's pseudonyms; else RECSYS_USER_KEY, if it is set."""
    recommend: Annotated[RecommendConfig, tyro.conf.arg(name="")] = field(
        default_factory=RecommendConfig
    )
    """The settings."""


def recommend(arguments: Arguments) -> Artifact:
    """Write the recommendations."""
    # Only now: Ray reads its environment when it is imported.
    from recsys.bulk.histories import names_of
    from recsys.bulk.recommend import recommend as recommend_all

    dataset = open_artifact(arguments.dataset, "dataset")
    checkpoint = open_artifact(arguments.checkpoint, "checkpoint")
    index = open_artifact(arguments.index, "index")
    users, parents = None, (dataset, checkpoint, index)
    if arguments.users is not None:
        lines = arguments.users.read_text(encoding="utf-8-sig").split("\n")
        ids = [line.removesuffix("\r") for line in lines]
        users = names_of(ids, dataset, read_user_key(arguments.user_key_file))
    settings = (arguments.recommend, arguments.histories)
    return recommend_all(*settings, *parents, arguments.output, users)


if __name__ == "__main__":
    run(Arguments, __doc__, recommend)

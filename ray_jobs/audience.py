"""Find the users who most likely want an item, new items too, and write them as Parquet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ray_jobs.bulk import BulkArguments, run
from recsys.artifact import Artifact, open_artifact
from recsys.config.bulk import AudienceConfig


@dataclass(frozen=True, kw_only=True)
class Arguments(BulkArguments):
    """What scores, and the items."""

    checkpoint: str
    """Directory or URI of the checkpoint artifact."""
    index: str
    """Directory or URI of the index made from it and the dataset."""
    item_id: tuple[str, ...]
    """The items whose users are looked for."""
    audience: Annotated[AudienceConfig, tyro.conf.arg(name="")] = field(
        default_factory=AudienceConfig
    )
    """The settings."""


def audience(arguments: Arguments) -> Artifact:
    """Write the audience of each item."""
    # Only now: Ray reads its environment when it is imported.
    from recsys.bulk.audience import audience as find_audience

    dataset = open_artifact(arguments.dataset, "dataset")
    checkpoint = open_artifact(arguments.checkpoint, "checkpoint")
    index = open_artifact(arguments.index, "index")
    return find_audience(
        arguments.audience,
        arguments.histories,
        arguments.item_id,
        dataset,
        checkpoint,
        index,
        arguments.output,
    )


if __name__ == "__main__":
    run(Arguments, __doc__, audience)

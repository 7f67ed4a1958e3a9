"""Forecast the events of each item in the next days, and measure that on the newest days."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ray_jobs.bulk import BulkArguments, run
from recsys.artifact import Artifact, open_artifact
from recsys.config.bulk import ForecastConfig


@dataclass(frozen=True, kw_only=True)
class Arguments(BulkArguments):
    """What is counted, and what helps. Needs the extra `eval`."""

    checkpoint: str = ""
    """Directory or URI of a checkpoint artifact; with it new items are forecast by their text."""
    index: str = ""
    """Directory or URI of the index made from it and the dataset."""
    forecast: Annotated[ForecastConfig, tyro.conf.arg(name="")] = field(
        default_factory=ForecastConfig
    )
    """The settings."""


def forecast(arguments: Arguments) -> Artifact:
    """Write the forecast.

    Raises:
        ValueError: a checkpoint without an index was given, or an index without a checkpoint.
    """
    # Only now: Ray reads its environment when it is imported.
    from recsys.bulk.forecast import forecast as forecast_dataset

    if bool(arguments.checkpoint) != bool(arguments.index):
        raise ValueError("--checkpoint and --index go together: give both or neither")
    model = None
    if arguments.checkpoint:
        checkpoint = open_artifact(arguments.checkpoint, "checkpoint")
        model = (checkpoint, open_artifact(arguments.index, "index"))
    dataset = open_artifact(arguments.dataset, "dataset")
    settings = (arguments.forecast, arguments.histories)
    return forecast_dataset(*settings, dataset, arguments.output, model)


if __name__ == "__main__":
    run(Arguments, __doc__, forecast)

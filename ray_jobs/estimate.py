"""Estimate what a model would earn, from the log of another policy: before anybody sees it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from pydantic import ValidationError

from recsys.artifact import open_artifact
from recsys.config import AnalysisConfig, describe
from recsys.engine.recommender import Recommender
from recsys.eval.policy_estimate import PolicyEstimate, estimate_policy, print_estimate


@dataclass(frozen=True)
class Arguments:
    """Logs with propensities, and the model. Needs the extra `eval`."""

    exposures: str
    """Folder or URI of the Parquet files of exposures."""
    feedback: str
    """Folder or URI of the Parquet files of feedback events; they are the histories too."""
    checkpoint: str
    """Directory or URI of the checkpoint that would answer."""
    index: str
    """Directory or URI of the index made from it."""
    filter_seen: bool = True
    """Take items of the history out of answers, as the service would."""
    clip: float = 20.0
    """Largest weight of a row: less spread, and a bias that is most often downward."""
    analysis: Annotated[AnalysisConfig, tyro.conf.arg(name="")] = field(
        default_factory=AnalysisConfig
    )
    """The settings; those of A/B tests alone change nothing."""


def run(arguments: Arguments) -> PolicyEstimate:
    """Answer the logged requests anew, and print what that would have earned."""
    checkpoint = open_artifact(arguments.checkpoint, "checkpoint")
    index = open_artifact(arguments.index, "index")
    recommender = Recommender.load(checkpoint, index, arguments.filter_seen)
    logs = (arguments.exposures, arguments.feedback)
    found = estimate_policy(recommender, *logs, arguments.analysis, arguments.clip)
    print_estimate(found)
    return found


if __name__ == "__main__":
    try:
        run(tyro.cli(Arguments, description=__doc__))
    except ValidationError as error:
        sys.exit(f"error: {describe(error, AnalysisConfig)}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

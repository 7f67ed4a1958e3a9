"""Analyse an A/B test: which variant is ahead by the logs of what was shown and what users did."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from pydantic import ValidationError

from recsys.config import AnalysisConfig, describe, parse_experiments
from recsys.eval.experiment_report import print_report, write_report
from recsys.experiments.analysis import analyse
from recsys.experiments.outcomes import read_outcomes
from recsys.storage import read_bytes


@dataclass(frozen=True)
class Arguments:
    """Logs, and how to read them. Needs the extra `eval`."""

    exposures: str
    """Folder or URI of the Parquet files of exposures."""
    feedback: str
    """Folder or URI of the Parquet files of feedback events."""
    experiment: str | None = None
    """Which experiment; may be left out where only one is logged."""
    experiments: str | None = None
    """TOML file with `[[experiments]]` that served; without it shares count as equal."""
    output: str | None = None
    """Directory or URI of the report; without it the result is only printed."""
    analysis: Annotated[AnalysisConfig, tyro.conf.arg(name="")] = field(
        default_factory=AnalysisConfig
    )
    """The settings."""


def run(arguments: Arguments) -> str | None:
    """Print the result, and write the report where a place is given."""
    logs = (arguments.exposures, arguments.feedback)
    outcomes = read_outcomes(*logs, arguments.analysis, arguments.experiment)
    place = arguments.experiments
    known = parse_experiments(read_bytes(place).decode(), place).experiments if place else ()
    by_name = {each.name: each for each in known}
    if place and outcomes.experiment not in by_name:
        raise ValueError(f"{place} lacks '{outcomes.experiment}'; it has: {', '.join(by_name)}")
    report = analyse(outcomes, arguments.analysis, by_name.get(outcomes.experiment))
    print_report(report)
    return write_report(report, arguments.output).uri if arguments.output else None


if __name__ == "__main__":
    try:
        if made := run(tyro.cli(Arguments, description=__doc__)):
            print(made, flush=True)
    except ValidationError as error:
        sys.exit(f"error: {describe(error, AnalysisConfig)}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

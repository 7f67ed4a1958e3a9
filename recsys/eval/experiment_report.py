"""The result of an experiment, as a table for the terminal and as a `report` artifact."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.artifact import Artifact, ArtifactWriter
from recsys.eval.experiment_page import render_experiment
from recsys.eval.report_numbers import interval_text, number


def write_report(report: dict[str, Any], output: str) -> Artifact:
    """The report of `experiments.analysis.analyse` with its page."""
    writer = ArtifactWriter(output, "report")
    writer.add_json("report.json", report)
    writer.add_bytes("report.html", render_experiment(report).encode())
    settings = {"experiment": report["experiment"], "analysis": report["analysis"]}
    return writer.publish(settings, parents={})


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """A row for each variant, the users needed, and the verdicts."""
    console = console or Console()
    table = Table(title=escape(f"Experiment {report['experiment']}"))
    for column in ("variant", "users", "shown", "clicks", "CTR", "conversion"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant, found in report["variants"].items():
        sums = [f"{found[name]:,}" for name in ("users", "impressions", "clicks")]
        table.add_row(escape(variant), *sums, _mean(found["ctr"]), _mean(found["conversion"]))
    console.print(table)
    for metric, users in report["users_needed"].items():
        if users is not None:
            console.print(_needed(metric, users, report["analysis"]), highlight=False)
    for line in report["verdicts"]:
        # A verdict is one line of plain text: [+0.01, +0.02] is no markup.
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _mean(found: dict[str, Any]) -> str:
    return f"{number(found['value'])} {interval_text(found['low'], found['high'])}"


def _needed(metric: str, users: int, analysis: dict[str, Any]) -> str:
    effect, power = analysis["expected_effect"], analysis["power"]
    return f"to find {effect:+.1%} {metric} with power {power:.0%}: {users:,} users a variant"

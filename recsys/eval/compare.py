"""Two reports over the same rows -> `comparison` artifact: which model is better, and how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.artifact import Artifact, ArtifactWriter
from recsys.eval.bootstrap import LEVEL, RESAMPLES, paired_differences
from recsys.eval.compare_page import render_comparison
from recsys.eval.report_models import TRAINED
from recsys.eval.report_numbers import interval_text, signed
from recsys.eval.row_scores import ROW_METRICS, RowScores, read_row_scores
from recsys.eval.segments import ALL

MAIN_METRIC = "ndcg@10"
SAME = ("split", "filter_seen")
"""Settings of the evaluation that two comparable reports share."""


@dataclass(frozen=True)
class Side:
    """One model of one report."""

    report: Artifact
    model: str = TRAINED


def compare(first: Side, second: Side, output: str) -> Artifact:
    """Compare model A (`first`) with model B (`second`), for every metric and segment.

    Segments that do not hold the same rows in both reports are named and left out, such as groups
    of other columns.

    Raises:
        ValueError: the reports are not over the same dataset, split and protocol, or one has no
            such model or is of an older release.
    """
    _check_comparable(first.report, second.report)
    a, b = (read_row_scores(side.report, [side.model]) for side in (first, second))
    shared = [name for name in a.rows if np.array_equal(a.rows[name], b.rows.get(name, []))]
    comparison = {
        "first": {"report": first.report.digest, "model": first.model},
        "second": {"report": second.report.digest, "model": second.model},
        "dataset": first.report.manifest.parents["dataset"],
        **{name: first.report.manifest.config["evaluation"][name] for name in SAME},
        "level": LEVEL,
        "resamples": RESAMPLES,
        "segments": {name: _compare_segment(name, a, b) for name in shared},
        "left_out": sorted({*a.rows, *b.rows} - {*shared}),
    }
    comparison["verdicts"] = verdicts(comparison)
    writer = ArtifactWriter(output, "comparison")
    writer.add_json("comparison.json", comparison)
    writer.add_bytes("comparison.html", render_comparison(comparison).encode())
    parents = {"first": first.report.digest, "second": second.report.digest}
    return writer.publish({"models": [first.model, second.model]}, parents)


def _check_comparable(first: Artifact, second: Artifact) -> None:
    one, two = (_protocol(report) for report in (first, second))
    if differing := [name for name in one if one[name] != two[name]]:
        told = "; ".join(f"{name} is {one[name]} and {two[name]}" for name in differing)
        raise ValueError(
            f"{first.uri} and {second.uri} cannot be compared, {told}: evaluate both models on the "
            "same dataset with the same settings"
        )


def _protocol(report: Artifact) -> dict[str, Any]:
    config = report.manifest.config["evaluation"]
    named = {"dataset": report.manifest.parents["dataset"]}
    return named | {name: config[name] for name in SAME}


def _compare_segment(segment: str, first: RowScores, second: RowScores) -> dict[str, Any]:
    """Means and difference of each metric; `rows` is their number."""
    a, b = first.of(segment)[:, 0], second.of(segment)[:, 0]
    found = paired_differences(a, b)
    metrics = {
        metric: {"first": float(a[:, n].mean()), "second": float(b[:, n].mean())}
        | found[n].to_json()
        for n, metric in enumerate(ROW_METRICS)
    }
    return {"rows": len(a), "metrics": metrics}


def verdicts(comparison: dict[str, Any]) -> list[str]:
    """A sentence for each metric over all rows, that of `MAIN_METRIC` first."""
    metrics = comparison["segments"][ALL]["metrics"]
    ordered = sorted(metrics, key=lambda name: name != MAIN_METRIC)
    return [_verdict(name, metrics[name], comparison["level"]) for name in ordered]


def _verdict(metric: str, found: dict[str, float], level: float) -> str:
    outcome = "no difference is shown"
    if found["low"] > 0:
        outcome = "B is better"
    elif found["high"] < 0:
        outcome = "A is better"
    ends = interval_text(found["low"], found["high"], with_sign=True)
    name = metric.replace("ndcg", "NDCG").replace("mrr", "MRR").replace("recall", "Recall")
    return f"{outcome}: {name} {signed(found['difference'])} {ends}, {level:.0%}"

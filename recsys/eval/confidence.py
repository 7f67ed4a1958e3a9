"""What a report's numbers can be trusted for: intervals, margins over baselines, gaps of groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.eval.bootstrap import LEVEL, RESAMPLES, difference, interval, resampled_means
from recsys.eval.row_scores import ROW_METRICS, RowScores
from recsys.eval.segments import ALL, OTHER, UNKNOWN, split_group_name

GAP_METRIC = "ndcg@10"


def confidence(scores: RowScores, trained: str) -> dict[str, Any]:
    """Intervals of every model, and how far the model `trained` is ahead of each other one.

    All are over the rows of segment `all`, by a bootstrap that draws the same rows for each model.
    """
    values = scores.of(ALL)
    num_rows, num_models, num_metrics = values.shape
    means = resampled_means(values.reshape(num_rows, -1)).reshape(-1, num_models, num_metrics)
    observed = values.mean(axis=0)
    low, high = interval(means)
    own = scores.models.index(trained)
    return {
        "level": LEVEL,
        "resamples": RESAMPLES,
        "models": {
            model: {m: [float(low[at, n]), float(high[at, n])] for n, m in enumerate(ROW_METRICS)}
            for at, model in enumerate(scores.models)
        },
        "margins": {
            model: {
                metric: difference(
                    observed[own, n] - observed[at, n], means[:, own, n] - means[:, at, n]
                ).to_json()
                for n, metric in enumerate(ROW_METRICS)
            }
            for at, model in enumerate(scores.models)
            if at != own
        },
    }


def fairness(scores: RowScores) -> dict[str, dict[str, dict[str, Any]]]:
    """For each user column and model the gap in NDCG@10 between its best and its worst group.

    Groups `other` and `unknown` are no groups of people and stay out. The interval is that of the
    difference of these two groups. They were picked for being best and worst, so with many groups
    it leaves out 0 more often by chance than its level says.
    """
    groups: dict[str, dict[str, str]] = {}
    for segment in scores.rows:
        kind, column, value = split_group_name(segment) or ("", "", "")
        if kind == "user" and value not in (OTHER, UNKNOWN):
            groups.setdefault(column, {})[value] = segment
    return {column: _gaps(scores, named) for column, named in groups.items() if len(named) > 1}


def _gaps(scores: RowScores, groups: dict[str, str]) -> dict[str, dict[str, Any]]:
    values = [scores.of(s)[:, :, ROW_METRICS.index(GAP_METRIC)] for s in groups.values()]
    observed = np.stack([of_group.mean(axis=0) for of_group in values])
    # Groups share no row, so each is drawn by itself.
    means = np.stack([resampled_means(v, seed=n) for n, v in enumerate(values)])
    names, found = list(groups), {}
    for at, model in enumerate(scores.models):
        best, worst = observed[:, at].argmax(), observed[:, at].argmin()
        gap = difference(np.ptp(observed[:, at]), means[best, :, at] - means[worst, :, at])
        ends = {"gap": gap.difference, "low": gap.low, "high": gap.high}
        found[model] = {**ends, "best": names[best], "worst": names[worst]}
    return found

"""Outcomes of an experiment -> what a report says: is the split sound, who is ahead, how sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.special import chdtrc, ndtri

from recsys.config import AnalysisConfig, ExperimentConfig
from recsys.experiments.differences import Sample, compare
from recsys.experiments.exposures import VARIANT
from recsys.experiments.interleaving import preference
from recsys.experiments.outcomes import Outcomes

METRICS = {
    "ctr": ("clicks", "impressions", "pre_clicks"),
    "conversion": ("converted", "users", "pre_conversions"),
}
"""Of each metric the columns of numerator, denominator and what was known before."""
MISMATCH_LEVEL = 0.001
"""A split this unlikely is a fault, not chance: Kohavi, Tang & Xu, "Trustworthy online controlled
experiments", 2020, chapter 21."""


def analyse(
    outcomes: Outcomes, config: AnalysisConfig, experiment: ExperimentConfig | None = None
) -> dict[str, Any]:
    """The content of report.json.

    Without the experiment's config the shares count as equal, and the variant that comes first by
    name as the control.

    Raises:
        ValueError: there are fewer than two variants, or users of one that the config lacks.
    """
    shares = _shares(outcomes, experiment)
    groups = {v: outcomes.users.filter(pl.col(VARIANT) == v) for v in shares}
    split = _split(groups, shares, assumed=experiment is None)
    comparisons = _comparisons(groups, config)
    report = {
        "experiment": outcomes.experiment,
        "analysis": config.model_dump(mode="json"),
        "counts": outcomes.counts,
        "split": split,
        "variants": {v: _means(rows, config.level) for v, rows in groups.items()},
        "comparisons": comparisons,
        "users_needed": _needed(groups[next(iter(shares))], config, comparisons),
        "interleaving": _interleaving(outcomes.users),
    }
    return report | {"verdicts": verdicts(report)}


def sample_ratio_p_value(counts: Sequence[int], shares: Sequence[float]) -> float:
    """How likely counts this far from their shares are by chance (Pearson's chi-square)."""
    expected = np.asarray(shares) * sum(counts)
    statistic = float(((np.asarray(counts) - expected) ** 2 / expected).sum())
    return float(chdtrc(len(counts) - 1, statistic))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values with which each test may be read as if it were alone.

    Holm, "A simple sequentially rejective multiple test procedure", 1979: the i-th smallest of m,
    times m - i + 1, and never below one that is smaller.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    raised = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    adjusted = np.empty(len(order))
    adjusted[order] = raised
    return adjusted.tolist()


def users_needed(spread: float, effect: float, level: float, power: float) -> int:
    """Users of each of two groups for a test that finds an absolute `effect` with this `power`.

    2 (z_level + z_power)^2 spread^2 / effect^2, with `spread` the standard deviation of a user's
    contribution to the metric: Kohavi, Tang & Xu 2020, chapter 17.
    """
    quantiles = float(ndtri((1 + level) / 2) + ndtri(power))
    return math.ceil(2 * (quantiles * spread / effect) ** 2)


def _shares(outcomes: Outcomes, experiment: ExperimentConfig | None) -> dict[str, float]:
    """Each variant's share, the control first."""
    found = outcomes.users[VARIANT].unique().sort().to_list()
    shares = {v.name: v.share for v in experiment.variants} if experiment else {}
    if experiment and (unknown := [name for name in found if name not in shares]):
        raise ValueError(
            f"{outcomes.experiment}: users saw {', '.join(unknown)}; its config has only: "
            f"{', '.join(shares)}"
        )
    if not experiment and len(found) < 2:
        raise ValueError(f"{outcomes.experiment}: only '{found[0]}' was shown; a test needs two")
    return shares or dict.fromkeys(found, 1 / len(found))


def _split(
    groups: dict[str, pl.DataFrame], shares: dict[str, float], assumed: bool
) -> dict[str, Any]:
    counts = {variant: len(rows) for variant, rows in groups.items()}
    p_value = sample_ratio_p_value(list(counts.values()), list(shares.values()))
    return {
        "users": counts,
        "shares": shares,
        "shares_assumed": assumed,
        "p_value": p_value,
        "mismatch": p_value < MISMATCH_LEVEL,
    }


def _sample(rows: pl.DataFrame, metric: str) -> Sample:
    columns = [rows[name].to_numpy().astype(np.float64) for name in METRICS[metric]]
    return Sample(*columns)


def _means(rows: pl.DataFrame, level: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in METRICS:
        sample = _sample(rows, metric)
        low, high = sample.interval(level) if sample.tells else (None, None)
        value = sample.ratio if len(rows) else None
        found[metric] = {"value": value, "low": low, "high": high}
    sums = {name: int(rows[name].sum()) for name in ("users", "impressions", "clicks", "converted")}
    return sums | found


def _comparisons(groups: dict[str, pl.DataFrame], config: AnalysisConfig) -> list[dict[str, Any]]:
    """Every variant with the control, for every metric; p-values are Holm's over all of them."""
    control, *others = groups
    pairs = [(metric, variant) for metric in METRICS for variant in others]
    found = []
    for metric, variant in pairs:
        first, second = (_sample(groups[name], metric) for name in (control, variant))
        named = {"metric": metric, "control": control, "variant": variant}
        if first.tells and second.tells:
            effect = config.expected_effect * first.ratio if config.sequential else None
            named |= compare(first, second, config.level, effect).to_json()
        found.append(named)
    judged = [each for each in found if "p_value" in each]
    for each, p_value in zip(judged, holm([each["p_value"] for each in judged]), strict=True):
        each["p_holm"] = p_value
    return found


def _needed(
    rows: pl.DataFrame, config: AnalysisConfig, comparisons: list[dict[str, Any]]
) -> dict[str, int | None]:
    """By metric the users that each group needs, judged by the control."""
    needed: dict[str, int | None] = dict.fromkeys(METRICS)
    for metric in METRICS:
        sample = _sample(rows, metric)
        if sample.tells:
            of_metric = [each for each in comparisons if each["metric"] == metric]
            saved = [each["variance_saved"] for each in of_metric if "p_value" in each]
            left = 1 - (sum(saved) / len(saved) if saved else 0.0)
            spread = float(sample.contributions().std(ddof=1)) * math.sqrt(left)
            effect = config.expected_effect * sample.ratio
            needed[metric] = users_needed(spread, effect, config.level, config.power)
    return needed


def _interleaving(users: pl.DataFrame) -> dict[str, Any] | None:
    """Which ranker interleaved answers prefer; None where there were none."""
    rows = users.select("first_team_clicks", "second_team_clicks").drop_nulls()
    if rows.is_empty():
        return None
    return preference(*(rows[name].to_numpy() for name in rows.columns)).to_json()


def verdicts(report: dict[str, Any]) -> list[str]:
    """The result in sentences, the most important first."""
    told = [_verdict(each, report["analysis"]) for each in report["comparisons"]]
    split = report["split"]
    if split["mismatch"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in split["users"].items())
        told.insert(
            0,
            f"do not trust this test: the users of the variants ({counts}) do not fit their shares "
            f"(p = {split['p_value']:.1g}); find out who is missing",
        )
    if found := report["interleaving"]:
        told.append(_preferred(found, report["analysis"]["level"]))
    return told


def _verdict(found: dict[str, Any], analysis: dict[str, Any]) -> str:
    variant, control, metric = found["variant"], found["control"], _words(found["metric"])
    if "p_value" not in found:
        return f"too little data: {metric} of {variant} against {control}"
    ends = f"[{found['low']:+.4f}, {found['high']:+.4f}], {analysis['level']:.0%}"
    outcome = "no difference is shown"
    if found["p_holm"] < 1 - analysis["level"]:
        ahead, behind = (variant, control) if found["difference"] > 0 else (control, variant)
        outcome = f"{ahead} is better than {behind}"
    share = found["difference"] / found["first"]
    return f"{outcome}: {metric} of {variant} {found['difference']:+.4f} ({share:+.1%}) {ends}"


def _preferred(found: dict[str, Any], level: float) -> str:
    outcome = "interleaving shows no preference"
    if found["p_value"] < 1 - level:
        ranker = "second" if found["second_wins"] > found["first_wins"] else "first"
        outcome = f"interleaving prefers the {ranker} ranker"
    return (
        f"{outcome}: first {found['first_wins']:,}, second {found['second_wins']:,}, "
        f"ties {found['ties']:,}, p = {found['p_value']:.2g}"
    )


def _words(metric: str) -> str:
    return metric.upper() if metric == "ctr" else metric

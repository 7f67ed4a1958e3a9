"""Expected events of each item in the next days -> `forecast` artifact.

The newest `days` days are forecast from what was known before them, and measured; the windows
before those choose the settings. With a checkpoint and an index the recommender's demand is the
prior of every item, so that new items have a forecast too. Needs the extra `eval`.

Shapes: N items.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter
from recsys.bulk.daily_counts import DailyCounts, count_days, offset_s, only_items
from recsys.bulk.demand import demand_shares
from recsys.bulk.forecast_quality import judge
from recsys.bulk.forecaster import (
    Forecast,
    Settings,
    choose_settings,
    events_of,
    forecast_items,
    prior_shares,
)
from recsys.bulk.histories import ITEMS, check_index, event_numbers
from recsys.bulk.rates import WEEK, last_week, weekday_factors
from recsys.config.bulk import ForecastConfig, HistoriesConfig
from recsys.data.split import BY_TIME
from recsys.schema import SECONDS_A_DAY

FORECAST, REPORT = "forecast.parquet", "report.json"
OWN, RECOMMENDER, MEAN = "history", "recommender", "mean"


def forecast(
    config: ForecastConfig,
    histories: HistoriesConfig,
    dataset: Artifact,
    output: str,
    model: tuple[Artifact, Artifact] | None = None,
) -> Artifact:
    """Write the forecast, and a report of how good one was on the newest days.

    `model` are a checkpoint and its index; without them items are drawn to the mean item.

    Raises:
        ValueError: the log is too short, the artifacts were not made from one another, or the
            model was trained on the days that are to be held out.
    """
    kinds = event_numbers(config.events, dataset, "forecast.events")
    items = dataset.read_table(ITEMS, [schema.ITEM_ID, schema.REMOVED])
    there = ~np.array(items[schema.REMOVED].to_pylist(), dtype=bool)
    if model is not None:
        check_index(dataset, model[1])
        _check_split_by_time(dataset)
    writer = ArtifactWriter(output, "forecast")
    daily = only_items(count_days(config, dataset, kinds, len(items)), there)
    first = 0 if model is None else _first_unseen(dataset, daily, offset_s(config))
    *ends, test = window_ends(daily.num_days, config.days, config.windows, first)
    columns = [*ends, test, daily.num_days]
    shares: dict[int, np.ndarray | None] = dict.fromkeys(columns)
    if model is not None:
        origins = [_second_of(daily, end, offset_s(config)) for end in columns]
        found = demand_shares(config, histories, dataset, *model, origins)
        shares = {end: _among(row, there) for end, row in zip(columns, found, strict=True)}
    priors = {end: prior_shares(len(daily.counts), shares[end]) for end in columns}
    settings = choose_settings(daily, ends, config.days, priors)
    held_out, made = (
        forecast_items(settings, daily, end, config.days, priors[end], config.interval)
        for end in (test, daily.num_days)
    )
    actual = events_of(daily, test, config.days)
    judged = judge(actual, held_out, last_week(daily, test, config.days))
    report = _report(config, daily, settings, ends, test) | {"held_out": judged}
    ids = items[schema.ITEM_ID].combine_chunks().filter(pa.array(there))
    prior_name = MEAN if model is None else RECOMMENDER
    writer.add_table(FORECAST, forecast_table(ids, made, prior_name))
    writer.add_json(REPORT, report)
    return _publish(writer, config, histories, dataset, model, report)


def window_ends(num_days: int, days: int, windows: int, first: int = 0) -> list[int]:
    """First columns of the held-out windows, oldest first; the last one is to be measured.

    A week is known before each, and none begins before column `first`.

    Raises:
        ValueError: the log has no room for two.
    """
    test = num_days - days
    least = max(WEEK, first)
    ends = [test - number * days for number in range(windows, -1, -1)]
    found = [end for end in ends if end >= least]
    if len(found) < 2:
        raise ValueError(
            f"the log has {num_days} days, {max(0, num_days - least)} of them after the first week "
            f"and the model's training; two held-out windows of {days} days are needed: set "
            "forecast.days lower, hold more days out in prepare.split, or leave the model out"
        )
    return found


def forecast_table(item_ids: pa.Array, made: Forecast, prior_name: str) -> pa.Table:
    """Rows of item_id, expected, low, high and source: where most of the number comes from."""
    sources = np.where(made.by_own_counts, OWN, prior_name)
    return pa.table(
        {
            schema.ITEM_ID: item_ids,
            "expected": pa.array(made.expected, pa.float64()),
            "low": pa.array(made.low, pa.int64()),
            "high": pa.array(made.high, pa.int64()),
            "source": pa.array(sources.tolist(), pa.large_string()),
        }
    )


def _check_split_by_time(dataset: Artifact) -> None:
    strategy = dataset.manifest.facts["split"]["strategy"]
    if strategy not in BY_TIME:
        raise ValueError(
            f"{dataset.uri} is split by {strategy}, so the model was trained on the days that are "
            "to be held out: prepare with split strategy time, or leave the model out"
        )


def _first_unseen(dataset: Artifact, daily: DailyCounts, offset: int) -> int:
    """The first column whose whole day the model was not trained on."""
    valid_from = dataset.manifest.facts["split"]["valid_from"]
    return -(-(valid_from + offset) // SECONDS_A_DAY) - daily.first_day


def _second_of(daily: DailyCounts, column: int, offset: int) -> float:
    """The first second (Unix) of a column's day."""
    return float((daily.first_day + column) * SECONDS_A_DAY - offset)


def _among(shares: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Shares among the items that are there."""
    kept = shares[there]
    return kept / kept.sum() if kept.sum() else np.full(len(kept), 1.0 / len(kept))


def _report(
    config: ForecastConfig, daily: DailyCounts, settings: Settings, ends: list[int], test: int
) -> dict[str, Any]:
    def date(column: int) -> str:
        day = datetime.date(1970, 1, 1) + datetime.timedelta(days=daily.first_day + column)
        return day.isoformat()

    factors = weekday_factors(daily, daily.num_days).round(4).tolist()
    return {
        "days": config.days,
        "log": {"from": date(0), "until": date(daily.num_days - 1)},
        "forecast_from": date(daily.num_days),
        "chosen_on": [date(end) for end in ends],
        "measured_from": date(test),
        "settings": asdict(settings),
        "weekdays_from_monday": factors,
    }


def _publish(
    writer: ArtifactWriter,
    config: ForecastConfig,
    histories: HistoriesConfig,
    dataset: Artifact,
    model: tuple[Artifact, Artifact] | None,
    report: dict[str, Any],
) -> Artifact:
    parents = {"dataset": dataset.digest}
    settings = {"forecast": config.model_dump(mode="json")}
    if model is not None:
        parents |= {"checkpoint": model[0].digest, "index": model[1].digest}
        settings["histories"] = histories.model_dump(mode="json", include={"batch_size"})
    return writer.publish(settings, parents, report)

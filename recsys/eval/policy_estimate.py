"""What a model would earn in place of the policy whose log there is: estimates before it is live.

The model answers each logged request once more, with the history that the user had then. It always
answers the same, so it puts an item at a place with probability 1 or 0.

Shapes: N items shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from recsys import schema
from recsys.config import AnalysisConfig
from recsys.data.timestamps import to_seconds
from recsys.engine.recommender import Event, Query, Recommender
from recsys.eval.report_numbers import interval_text, number
from recsys.experiments.exposures import REQUEST_ID, read_exposures, read_feedback
from recsys.experiments.offline import (
    PROBABILITY,
    Estimate,
    doubly_robust,
    ips,
    on_policy,
    snips,
    to_log,
)
from recsys.experiments.outcomes import attribute

AT_ONCE = 256
PRIOR_SHOWINGS = 20.0
"""Showings with the mean reward that an item begins with, so that two clicks are no rate of 1."""
FOLDS = 2
_EVENTS = "events"


@dataclass(frozen=True)
class PolicyEstimate:
    """The mean reward a place of the policy that was logged, and what a model would have by each
    method; `rows` counts the exposures by what became of them."""

    logged: Estimate
    model: dict[str, Estimate]
    rows: dict[str, int]


def estimate_policy(
    recommender: Recommender, exposures: str, feedback: str, config: AnalysisConfig, clip: float
) -> PolicyEstimate:
    """Estimates from two Parquet folders; a request that is logged for several experiments counts
    once. `clip` is the largest weight.

    Raises:
        ValueError: a folder cannot be read, or its log says nothing of another policy.
    """
    read = read_exposures(exposures)
    shown = read.rows.unique(REQUEST_ID, keep="first", maintain_order=True)
    events = read_feedback(feedback)
    impressions, _ = attribute(shown, events, config)
    target = target_of(recommender, with_histories(shown, events))
    log = to_log(impressions, target)
    predicted = predicted_rewards(impressions, target)
    told = {"clip": clip, "level": config.level}
    model = {
        "ips": ips(log, **told),
        "snips": snips(log, **told),
        "doubly robust": doubly_robust(log, *predicted, **told),
    }
    counts = read.counts | {"repeated_request": len(read.rows) - len(shown)}
    return PolicyEstimate(on_policy(log, config.level), model, counts | read.reasons)


def with_histories(shown: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """The exposures with `events`: what the user did before, oldest first, as structs."""
    events = feedback.select(
        schema.USER_ID,
        schema.ITEM_ID,
        to_seconds(schema.TIMESTAMP, "auto").alias(schema.TIMESTAMP),
        schema.EVENT,
    ).drop_nulls([schema.USER_ID, schema.ITEM_ID, schema.TIMESTAMP])
    columns = [schema.ITEM_ID, schema.TIMESTAMP, schema.EVENT]
    by_user = (
        events.sort(schema.TIMESTAMP, maintain_order=True)
        .group_by(schema.USER_ID, maintain_order=True)
        .agg(pl.struct(columns).alias(_EVENTS))
    )
    return shown.join(by_user, on=schema.USER_ID, how="left", maintain_order="left")


def target_of(recommender: Recommender, shown: pl.DataFrame) -> pl.DataFrame:
    """request_id, item_id, position and probability (1) of what a model answers to requests."""
    parts: list[pl.DataFrame] = []
    for part in shown.iter_slices(AT_ONCE):
        rows = list(part.iter_rows(named=True))
        answers = recommender.recommend([_query(row) for row in rows])
        for row, answer in zip(rows, answers, strict=True):
            ids = [item.item_id for item in answer.items]
            parts.append(_places(row[REQUEST_ID], ids))
    return pl.concat(parts)


def _query(row: dict) -> Query:
    before = [e for e in row[_EVENTS] or [] if e[schema.TIMESTAMP] < row[schema.TIMESTAMP]]
    history = [Event(e[schema.ITEM_ID], e[schema.TIMESTAMP], e[schema.EVENT]) for e in before]
    return Query(history, max(row["positions"]))


def _places(request_id: str, item_ids: Sequence[str]) -> pl.DataFrame:
    count = len(item_ids)
    return pl.DataFrame(
        {
            REQUEST_ID: [request_id] * count,
            schema.ITEM_ID: item_ids,
            "position": range(1, count + 1),
            PROBABILITY: [1.0] * count,
        },
        schema={
            REQUEST_ID: pl.String,
            schema.ITEM_ID: pl.String,
            "position": pl.Int32,
            PROBABILITY: pl.Float64,
        },
    )


def predicted_rewards(
    impressions: pl.DataFrame, target: pl.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the expected reward of what was shown, and of what the model puts in its place.

    An item's rate of clicks, drawn to the mean, from the users of the other fold: so no row
    predicts itself. Where the model answers too few items the mean is expected.
    """
    chosen = target.select(REQUEST_ID, "position", pl.col(schema.ITEM_ID).alias("chosen"))
    rows = impressions.select(
        REQUEST_ID,
        schema.ITEM_ID,
        pl.col("position").cast(pl.Int32),
        "clicked",
        (pl.col(schema.USER_ID).rank("dense") % FOLDS).alias("fold"),
    ).join(chosen, on=[REQUEST_ID, "position"], how="left", maintain_order="left")
    shown, placed = np.zeros(len(rows)), np.zeros(len(rows))
    for fold in range(FOLDS):
        here = (rows["fold"] == fold).to_numpy()
        others = rows.filter(~here)
        mean = float((others if len(others) else rows)["clicked"].mean())  # pyright: ignore
        clicks = others.group_by(schema.ITEM_ID).agg(pl.col("clicked").sum(), pl.len())
        rates = {
            item: (clicked + PRIOR_SHOWINGS * mean) / (count + PRIOR_SHOWINGS)
            for item, clicked, count in clicks.iter_rows()
        }
        for values, name in ((shown, schema.ITEM_ID), (placed, "chosen")):
            values[here] = [rates.get(item, mean) for item in rows[name].filter(here)]
    return shown, placed


def print_estimate(found: PolicyEstimate, console: Console | None = None) -> None:
    """A row for the log and for each method, and what became of the rows."""
    console = console or Console()
    table = Table(title="Mean reward a place")
    for name in ("of", "value", "interval", "effective rows", "clipped"):
        table.add_column(name, justify="left" if name == "of" else "right")
    for name, one in {"the log itself": found.logged, **found.model}.items():
        bounds = interval_text(one.low, one.high)
        rest = f"{one.effective_rows:,.0f}", f"{one.clipped:.1%}"
        table.add_row(name, number(one.value), bounds, *rest)
    console.print(table)
    told = ", ".join(f"{name} {count:,}" for name, count in found.rows.items())
    console.print(f"exposures: {told}", markup=False, highlight=False, soft_wrap=True)

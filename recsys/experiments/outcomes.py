"""What came of what was shown: events joined to the items shown before them, summed by user.

An event counts for the newest earlier showing of that item to that user, at most `window_hours`
before it. A showing counts one click at most, so a CTR stays below 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from recsys import schema
from recsys.config import AnalysisConfig
from recsys.data.timestamps import to_seconds
from recsys.experiments.exposures import (
    EXPERIMENT,
    LISTS,
    OPTIONAL_LISTS,
    VARIANT,
    read_exposures,
    read_feedback,
)

SECONDS_AN_HOUR = 3_600
_ROW, _SHOWN_AT, _KIND = "row", "shown_at", "kind"
_CLICK, _CONVERSION = "click", "conversion"


@dataclass(frozen=True)
class Outcomes:
    """What the users of one experiment did.

    `users` has a row for each: user_id, variant, users (1), impressions (items shown), clicks,
    converted (0 or 1), pre_clicks and pre_conversions (events before the experiment), and
    first_team_clicks and second_team_clicks, null where no answer was interleaved. `counts` tells
    of the rows of both logs; each adds up.
    """

    experiment: str
    users: pl.DataFrame
    counts: dict[str, dict[str, int]]


def read_outcomes(
    exposures_uri: str,
    feedback_uri: str,
    config: AnalysisConfig,
    experiment: str | None = None,
    since: str = "",
) -> Outcomes:
    """The outcome of `experiment`, or of the only one that is logged, from two Parquet folders.

    All is held in memory: a hundred bytes or so for each item shown. Days before the date `since`
    are not opened.

    Raises:
        ValueError: a folder cannot be read, nothing is logged of the experiment, or several are
            logged and none is named.
    """
    exposures = read_exposures(exposures_uri, experiment, since)
    name = experiment or _only_one(exposures.rows[EXPERIMENT], exposures_uri)
    rows = exposures.rows.filter(pl.col(EXPERIMENT) == name)
    if rows.is_empty():
        raise ValueError(f"{exposures_uri}: no good row of '{name}' is left: {exposures.reasons}")
    impressions, used = attribute(rows, read_feedback(feedback_uri, since), config)
    elsewhere = len(exposures.rows) - len(rows)  # requests in no experiment
    counts = exposures.counts | {"kept": len(rows), "no_experiment": elsewhere}
    told = {"exposures": counts | exposures.reasons, "feedback": used.counts}
    users = _by_user(impressions).join(
        used.before, on=schema.USER_ID, how="left", maintain_order="left"
    )
    return Outcomes(name, users.with_columns(pl.col(*used.before.columns[1:]).fill_null(0)), told)


def _only_one(names: pl.Series, uri: str) -> str:
    found = names.unique().drop_nulls().sort().to_list()
    if len(found) != 1:
        told = ", ".join(found) or "none"
        raise ValueError(f"name the experiment to analyse; {uri} has: {told}")
    return found[0]


@dataclass(frozen=True)
class UsedFeedback:
    """What became of the events: `counts`, and each user's events `before` the experiment."""

    before: pl.DataFrame
    counts: dict[str, int]


def attribute(
    exposures: pl.DataFrame, feedback: pl.DataFrame, config: AnalysisConfig
) -> tuple[pl.DataFrame, UsedFeedback]:
    """A row for each item shown, with `clicked` and `converted`; and what became of the events.

    `exposures` are good rows and `feedback` raw ones.
    """
    shown = _items_shown(exposures)
    events = _of_interest(feedback, config)
    caused = events.sort(schema.TIMESTAMP).join_asof(
        shown.select(
            schema.USER_ID, schema.ITEM_ID, _ROW, pl.col(schema.TIMESTAMP).alias(_SHOWN_AT)
        ).sort(_SHOWN_AT),
        left_on=schema.TIMESTAMP,
        right_on=_SHOWN_AT,
        by=[schema.USER_ID, schema.ITEM_ID],
        tolerance=round(config.window_hours * SECONDS_AN_HOUR),
        check_sortedness=False,  # polars cannot check it within groups, and warns
    )
    caused = caused.filter(pl.col(_ROW).is_not_null())
    counts = {
        "read": len(feedback),
        "attributed": len(caused),
        "not_shown_before": len(events) - len(caused),
        "unusable_or_of_other_kind": len(feedback) - len(events),
    }
    before = _before(events, int(exposures[schema.TIMESTAMP].min()), config.pre_days)  # pyright: ignore
    return _with_outcome(shown, caused), UsedFeedback(before, counts)


def _items_shown(exposures: pl.DataFrame) -> pl.DataFrame:
    names = LISTS | OPTIONAL_LISTS
    lengths = pl.col("item_ids").list.len()
    # explode wants lists of one length: those that nobody knows become lists of nulls.
    unknown = [pl.col(n).fill_null(pl.lit(None).repeat_by(lengths)) for n in OPTIONAL_LISTS]
    return exposures.with_columns(unknown).explode(*names).rename(names).with_row_index(_ROW)


def _of_interest(feedback: pl.DataFrame, config: AnalysisConfig) -> pl.DataFrame:
    """Clicks and conversions of named users and items, in seconds."""
    kind = (
        pl.when(pl.col(schema.EVENT).is_in(config.conversion_events))
        .then(pl.lit(_CONVERSION))
        .when(pl.col(schema.EVENT).is_in(config.click_events))
        .then(pl.lit(_CLICK))
    )
    events = feedback.select(
        schema.USER_ID,
        schema.ITEM_ID,
        to_seconds(schema.TIMESTAMP, "auto").alias(schema.TIMESTAMP),
        kind.alias(_KIND),
    )
    return events.drop_nulls().filter(pl.col(schema.TIMESTAMP) >= 0)


def _with_outcome(shown: pl.DataFrame, caused: pl.DataFrame) -> pl.DataFrame:
    kinds = {"clicked": _CLICK, "converted": _CONVERSION}
    for name, kind in kinds.items():
        rows = caused.filter(pl.col(_KIND) == kind).select(_ROW, pl.lit(1).alias(name)).unique()
        shown = shown.join(rows, on=_ROW, how="left", maintain_order="left")
    return shown.with_columns(pl.col(*kinds).fill_null(0)).drop(_ROW)


def _before(events: pl.DataFrame, start: int, days: float) -> pl.DataFrame:
    """Events of each user in the days before `start`: no variant can have caused them."""
    earliest = start - round(days * schema.SECONDS_A_DAY)
    return (
        events.filter(pl.col(schema.TIMESTAMP).is_between(earliest, start, closed="left"))
        .group_by(schema.USER_ID)
        .agg(
            (pl.col(_KIND) == _CLICK).sum().alias("pre_clicks"),
            (pl.col(_KIND) == _CONVERSION).sum().alias("pre_conversions"),
        )
    )


def _by_user(impressions: pl.DataFrame) -> pl.DataFrame:
    team, clicked = pl.col("team"), pl.col("clicked")
    credit = [
        pl.when(team.is_not_null().any()).then(clicked.filter(team == number).sum()).alias(name)
        for number, name in enumerate(("first_team_clicks", "second_team_clicks"))
    ]
    return impressions.group_by(schema.USER_ID, maintain_order=True).agg(
        pl.col(VARIANT).first(),
        pl.lit(1).alias("users"),
        pl.len().alias("impressions"),
        clicked.sum().alias("clicks"),
        pl.col("converted").max(),
        *credit,
    )

"""What users were shown: the row that serving logs, and how the logs are read.

One exposure is one answered request in one experiment. A request that is in several experiments is
logged once for each; one that is in none may be logged too, for estimates from logs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import polars as pl
import pyarrow as pa

from recsys import schema
from recsys.data.quality import normalise
from recsys.data.sources import (
    INTERACTION_COLUMNS,
    Column,
    RawFile,
    find_source,
    list_files,
    read_source,
)
from recsys.storage import StorageError

DAY = re.compile(r"/date=([0-9]{4}-[0-9]{2}-[0-9]{2})/")
"""The day of a log's file, as `recsys.store.feedback` names folders."""
REQUEST_ID, EXPERIMENT, VARIANT = "request_id", "experiment", "variant"
LISTS = {"item_ids": "item_id", "positions": "position"}
"""List columns of an exposure, and the column of one item shown that each becomes."""
OPTIONAL_LISTS = {"scores": "score", "propensities": "propensity", "teams": "team"}
"""The same for those that are null where nobody knows them."""

EXPOSURES = pa.schema(
    [
        (REQUEST_ID, pa.string()),
        (schema.USER_ID, pa.string()),
        (EXPERIMENT, pa.string()),
        (VARIANT, pa.string()),
        (schema.TIMESTAMP, pa.int64()),
        ("model_version", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("positions", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float64())),
        ("propensities", pa.list_(pa.float64())),
        ("teams", pa.list_(pa.int8())),
    ]
)
"""The log's Parquet columns."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One answer as one user saw it; all sequences have one length.

    `timestamp` is Unix seconds and `positions` count from 1. `experiment` and `variant` are None
    for a request in no experiment. `propensities` are the probabilities with which the policy that
    answered shows these items at these positions; `teams` say for an interleaved answer which
    ranker, 0 or 1, put the item there.

    Raises:
        ValueError: the sequences differ in length.
    """

    request_id: str
    user_id: str
    experiment: str | None
    variant: str | None
    timestamp: int
    model_version: str
    item_ids: Sequence[str]
    positions: Sequence[int]
    scores: Sequence[float] | None = None
    propensities: Sequence[float] | None = None
    teams: Sequence[int] | None = None

    def __post_init__(self) -> None:
        lists = {name: getattr(self, name) for name in (*LISTS, *OPTIONAL_LISTS)}
        lengths = {name: len(values) for name, values in lists.items() if values is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"an exposure's lists must have one length, not {lengths}")


def to_table(exposures: Sequence[Exposure]) -> pa.Table:
    """Exposures as the log's Parquet holds them."""
    return pa.Table.from_pylist([asdict(exposure) for exposure in exposures], EXPOSURES)


_LIST = Column(lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind), "a list")
_REQUIRED_LIST = Column(_LIST.accepts, _LIST.allowed, required=True)
_TEXT = Column(INTERACTION_COLUMNS[schema.EVENT].accepts, "string", required=True)
_SECONDS = Column(pa.types.is_integer, "integer Unix seconds", required=True)
_FEEDBACK = INTERACTION_COLUMNS | {
    schema.EVENT: _TEXT,
    schema.TIMESTAMP: replace(INTERACTION_COLUMNS[schema.TIMESTAMP], required=True),
}
_COLUMNS = {
    REQUEST_ID: _TEXT,
    schema.USER_ID: INTERACTION_COLUMNS[schema.USER_ID],
    EXPERIMENT: _TEXT,
    VARIANT: _TEXT,
    schema.TIMESTAMP: _SECONDS,
    **dict.fromkeys(LISTS, _REQUIRED_LIST),
    **dict.fromkeys(OPTIONAL_LISTS, _LIST),
}

_RULES = {
    "null_request_id": pl.col(REQUEST_ID).fill_null("") == "",
    "null_user_id": pl.col(schema.USER_ID).fill_null("") == "",
    "null_variant": pl.col(EXPERIMENT).is_not_null() & (pl.col(VARIANT).fill_null("") == ""),
    "bad_timestamp": pl.col(schema.TIMESTAMP).fill_null(-1) < 0,
    "no_items": pl.col("item_ids").list.len().fill_null(0) == 0,
    "null_item_id": pl.col("item_ids").list.contains(None),
    "uneven_lists": pl.any_horizontal(
        (pl.col(name).list.len() != pl.col("item_ids").list.len()).fill_null(name in LISTS)
        for name in ("positions", *OPTIONAL_LISTS)
    ),
    "duplicate": ~pl.struct(REQUEST_ID, EXPERIMENT).is_first_distinct(),
}
"""What is wrong with a row, by reason; the first that holds is the row's. A log that writes again
after a fault may hold a row twice."""


@dataclass(frozen=True)
class Exposures:
    """The good rows of a log, and how many rows were read, kept and refused by reason."""

    rows: pl.DataFrame
    counts: dict[str, int]
    reasons: dict[str, int]


class NothingLogged(ValueError):
    """A log has nothing of what was asked for, or nothing yet."""


def read_exposures(uri: str, experiment: str | None = None, since: str = "") -> Exposures:
    """The exposures below the folder `uri`, of one experiment or of all.

    `since` is a date, such as 2026-01-31: older days are not opened.

    Rows of a user who saw two variants of one experiment are refused as `crossed_over`: of them
    nobody can say what made them click.

    Raises:
        NothingLogged: there are no files of these days, or nothing is logged of this experiment;
            names those that are.
        ValueError: a file is not whole Parquet or lacks a column.
    """
    raw = pl.DataFrame(pl.from_arrow(read_log(uri, _COLUMNS, since)))
    absent = [pl.lit(None, pl.List(pl.Float64)).alias(n) for n in _COLUMNS if n not in raw.columns]
    rows = raw.with_columns(*absent, pl.col(schema.USER_ID).cast(pl.String)).select(*_COLUMNS)
    if experiment is not None:
        logged = rows[EXPERIMENT].unique().drop_nulls().sort().to_list()
        rows = rows.filter(pl.col(EXPERIMENT) == experiment)
        if rows.is_empty():
            raise NothingLogged(
                f"{uri} has nothing of experiment '{experiment}'; it has: {', '.join(logged)}"
            )
    return _divide(rows)


def read_feedback(uri: str, since: str = "") -> pl.DataFrame:
    """The events below the folder `uri`, with the columns of an interaction, as they are.

    Raises:
        NothingLogged: there are no files of the days from `since` on.
        ValueError: a file is not whole Parquet or lacks a column.
    """
    return normalise(read_log(uri, _FEEDBACK, since))


def read_log(uri: str, columns: dict[str, Column], since: str = "") -> pa.Table:
    """The rows below the folder `uri`; files of a day before `since` are not opened.

    Raises:
        NothingLogged: there are no such files.
        ValueError: a file is not whole Parquet or lacks a column.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    place = parent or "."
    old = [file for file in _files(place, name) if _day_of(file) < since]
    source = find_source(place, name, columns, done=old)
    if not source.paths:
        raise NothingLogged(f"{uri} has no files from {since} on")
    return read_source(source)


def _files(place: str, name: str) -> list[RawFile]:
    try:
        return list_files(place, name)
    except StorageError:
        raise
    except ValueError as error:
        raise NothingLogged(str(error)) from error


def _day_of(file: RawFile) -> str:
    """A file outside the folder of a day is of the newest: it may hold any."""
    found = DAY.search(f"/{file.path}")
    return found[1] if found else "9999-12-31"


def _divide(rows: pl.DataFrame) -> Exposures:
    """Good rows, and the others counted by the first rule they break."""
    broken = [pl.when(rule).then(pl.lit(name)) for name, rule in _RULES.items()]
    told = rows.with_columns(pl.coalesce(broken).alias(schema.RULE))
    crossed = pl.col(VARIANT).n_unique().over(schema.USER_ID, EXPERIMENT) > 1
    good = told.filter(pl.col(schema.RULE).is_null()).with_columns(
        pl.when(crossed).then(pl.lit("crossed_over")).alias(schema.RULE)
    )
    kept = good.filter(pl.col(schema.RULE).is_null()).drop(schema.RULE)
    reasons = Counter(told[schema.RULE].drop_nulls()) + Counter(good[schema.RULE].drop_nulls())
    counts = {"read": len(rows), "kept": len(kept), "refused": reasons.total()}
    return Exposures(kept, counts, dict(reasons.most_common()))

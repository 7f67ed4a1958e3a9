"""How the requests of users in an experiment ended: status, time and number of items.

Serving logs a row for each request and experiment, also for one that failed, of which there is no
exposure. A request for several users (`/v1/batch`) has no row: it ends as one for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from recsys import schema
from recsys.data.sources import INTERACTION_COLUMNS, Column
from recsys.experiments.exposures import EXPERIMENT, REQUEST_ID, VARIANT, read_log

RELEASE = "release"
REQUESTS = pa.schema(
    [
        (REQUEST_ID, pa.string()),
        (schema.USER_ID, pa.string()),
        (EXPERIMENT, pa.string()),
        (VARIANT, pa.string()),
        (schema.TIMESTAMP, pa.int64()),
        (RELEASE, pa.string()),
        ("route", pa.string()),
        ("status", pa.int32()),
        ("ms", pa.float64()),
        ("num_items", pa.int32()),
    ]
)
"""The log's Parquet columns. `release` is the version's name in the registry, of the one that was
to answer where none did; `num_items` is null for a request that was not answered."""


def rows_of(
    request_id: str,
    user_id: str,
    variants: Mapping[str, str],
    release: str,
    route: str | None,
    status: int,
    seconds: float,
    num_items: int | None,
) -> pa.Table:
    """A request that is over, a row for each experiment that its user is in."""
    row = {
        REQUEST_ID: request_id,
        schema.USER_ID: user_id,
        schema.TIMESTAMP: int(time.time()),
        RELEASE: release,
        "route": route,
        "status": status,
        "ms": 1e3 * seconds,
        "num_items": num_items,
    }
    rows = [row | {EXPERIMENT: name, VARIANT: variant} for name, variant in variants.items()]
    return pa.Table.from_pylist(rows, REQUESTS)


_TEXT = INTERACTION_COLUMNS[schema.EVENT].accepts
_COLUMNS = {
    field.name: Column(
        _TEXT if pa.types.is_string(field.type) else lambda kind: not _TEXT(kind),
        str(field.type),
        required=True,
    )
    for field in REQUESTS
}
_KNOWN = [name for name in REQUESTS.names if name not in ("route", "num_items")]


def read_requests(uri: str, experiment: str, since: str) -> pl.DataFrame:
    """The requests of one experiment below the folder `uri`; rows that say too little are left out.

    `since` is a date, such as 2026-01-31: older days are not opened.

    Raises:
        NothingLogged: there are no files of these days.
        ValueError: a file is not whole Parquet or lacks a column.
    """
    rows = pl.DataFrame(pl.from_arrow(read_log(uri, _COLUMNS, since)))
    rows = rows.filter(pl.col(EXPERIMENT) == experiment)
    # A log that writes again after a fault may hold a row twice.
    return rows.drop_nulls(_KNOWN).unique(maintain_order=True)

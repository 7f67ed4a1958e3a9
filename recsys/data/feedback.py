"""What the service logged yesterday becomes raw interactions, in the schema that they have.

    <feedback>/interactions/date=2026-01-31/part-x.parquet
    -> <data>/interactions/feedback/date=2026-01-31/part-x.parquet

A file is taken in once and never changes after that, which is what an incremental `prepare` needs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.sources import INTERACTION_COLUMNS, list_files, parquet_errors
from recsys.storage import filesystem, read_bytes, retried, write_bytes
from recsys.store.feedback import INTERACTIONS

FOLDER = "feedback"
THREADS = 16


def take_in_feedback(feedback: str, data: str) -> list[str]:
    """Copy what is new in the feedback log to the raw interactions; returns the files' names.

    Columns that interactions do not have are left out (`ray_jobs.analyze` reads them where they
    are), and those that the log does not have are null.

    Raises:
        ValueError: interactions are one file, or a file cannot be brought into their schema.
    """
    there = [file.path for file in list_files(data, INTERACTIONS)]
    if there == [f"{INTERACTIONS}.parquet"]:
        raise ValueError(
            f"{data} has its interactions in one file: move it to {INTERACTIONS}/, where others "
            "can stand beside it"
        )
    schema = _schema_of(f"{data}/{there[0]}")
    place = f"{INTERACTIONS}/{FOLDER}"
    done = {path.removeprefix(f"{place}/") for path in there}
    logged = [f.path.removeprefix(f"{INTERACTIONS}/") for f in list_files(feedback, INTERACTIONS)]
    fresh = [name for name in logged if name not in done]

    def take_in(name: str) -> None:
        rows = _in_schema(f"{feedback}/{INTERACTIONS}/{name}", schema)
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        write_bytes(f"{data}/{place}/{name}", sink.getvalue().to_pybytes())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(take_in, fresh))
    return fresh


def _schema_of(uri: str) -> pa.Schema:
    """The columns of an interaction that a raw file has."""
    fs, path = filesystem(uri)
    with parquet_errors(uri):
        found = retried(lambda: pq.read_schema(path, filesystem=fs))
    return pa.schema([found.field(name) for name in INTERACTION_COLUMNS if name in found.names])


def _in_schema(uri: str, schema: pa.Schema) -> pa.Table:
    content = read_bytes(uri)
    with parquet_errors(uri):
        rows = pq.read_table(pa.BufferReader(content))
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(len(rows), field.type))
            continue
        try:
            columns.append(_cast(rows[field.name], field.type))
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"{uri}: column '{field.name}' cannot be {field.type}, as it is in the raw "
                f"interactions: {error}"
            ) from error
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(kind) and pa.types.is_integer(column.type):
        # The log has seconds, and Arrow would take an integer for a number of the target's units.
        return column.cast(pa.timestamp("s", tz=kind.tz)).cast(kind)
    return column.cast(kind)

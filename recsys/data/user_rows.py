"""The rows of some users in Parquet files with a `user_id` column: divided, counted, deleted."""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from recsys import schema
from recsys.artifact import Artifact, parquet_bytes, write_file
from recsys.storage import filesystem, list_files, read_bytes

THREADS = 8
"""Files read at once; each is in memory as a whole."""


class Removal(BaseModel):
    """A file that held rows of the users, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    rows: int


def users_of(table: pa.Table) -> pa.ChunkedArray:
    """The ids of a table's users as text."""
    return pc.cast(table[schema.USER_ID], pa.large_string())


def divide(content: bytes, names: pa.Array) -> tuple[pa.Table, pa.Table] | None:
    """The rows of other users, and of these; None where there are none of these."""
    source = pq.ParquetFile(pa.BufferReader(content))
    if schema.USER_ID not in source.schema_arrow.names:
        return None
    mask = pc.is_in(users_of(source.read(columns=[schema.USER_ID])), names)
    if not pc.any(mask).as_py():
        return None
    table = source.read()
    return table.filter(pc.invert(mask)), table.filter(mask)


def count_rows(dataset: Artifact, names: Sequence[str]) -> int:
    """Rows of these users in a dataset's files, each read again."""
    known = pa.array(names, pa.large_string())

    def count(name: str) -> int:
        divided = divide(dataset.read_bytes(name), known)
        return len(divided[1]) if divided else 0

    tables = [name for name in dataset.names() if name.endswith(".parquet")]
    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(count, tables))


def forget_in_folder(uri: str, names: Sequence[str]) -> list[Removal]:
    """Rewrite the Parquet files below `uri` that hold these users; each as a whole or not at all.

    `names` are ids as the files have them (see `known_names`). Other files stay untouched.

    Raises:
        ValueError: a file is not whole Parquet, or cannot be read or written; names the file.
    """
    known = pa.array(names, pa.large_string())
    found = [info.path for info in list_files(uri) if info.path.endswith(".parquet")]
    _, root = filesystem(uri)
    inside = [path.removeprefix(f"{root}/") for path in found]
    with ThreadPoolExecutor(THREADS) as pool:
        removals = list(pool.map(partial(_forget_in_file, uri, known), inside))
    return [removal for removal in removals if removal.rows]


def _forget_in_file(uri: str, names: pa.Array, name: str) -> Removal:
    content = read_bytes(f"{uri.rstrip('/')}/{name}")
    try:
        divided = divide(content, names)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{uri}: '{name}' is truncated or not Parquet: {error}") from error
    if divided is None:
        return Removal(path=name, rows=0)
    left, removed = divided
    write_file(uri, name, parquet_bytes(left))
    return Removal(path=name, rows=len(removed))

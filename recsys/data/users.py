"""The raw table `users`: what the company knows of its users, for the segments of a report.

Only the columns that `prepare.user_columns` names are read, and only of users who have rows in the
dataset. Their values are kept as text: they name groups, and no model sees them.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from recsys import schema
from recsys.artifact import ArtifactWriter
from recsys.data.interactions import EVENTS
from recsys.data.privacy import pseudonymise
from recsys.data.sources import INTERACTION_COLUMNS, Column, find_source, read_source
from recsys.data.user_rows import THREADS, users_of
from recsys.storage import filesystem, retried, storage_errors

TABLE = "users"
USERS = "users.parquet"
NAMELESS = "null_user_id"


def has_users(data: str) -> bool:
    """Whether there is a table `users` under `data`."""
    fs, root = filesystem(data)
    with storage_errors(f"{data}/{TABLE}"):
        found = retried(lambda: fs.get_file_info([f"{root}/{USERS}", f"{root}/{TABLE}"]))
    return found[0].is_file or found[1].type == pafs.FileType.Directory


def write_users(
    data: str, columns: Sequence[str], user_key: bytes | None, writer: ArtifactWriter
) -> dict[str, dict]:
    """Write `users.parquet` from the table `users` under `data`; returns its counts.

    Call it when `writer` has every event and held-out row. With a `user_key` users become
    pseudonyms. Rows that name nobody go to quarantine; users without rows are left out. Nothing is
    read or written where no `columns` are asked for, or where no user is left.

    Raises:
        ValueError: there is no such table or column, a column's values cannot be text, or a user
            stands in it twice.
    """
    if not columns:
        return {}
    raw = _read(data, columns, user_key)
    nameless = pc.equal(pc.fill_null(raw[schema.USER_ID], ""), "")
    named, bad = raw.filter(pc.invert(nameless)), raw.filter(nameless)
    _check_distinct(data, named)
    known = named.filter(_is_known(named[schema.USER_ID], writer)).sort_by(schema.USER_ID)
    if len(bad):
        rule = pa.array([NAMELESS] * len(bad))
        writer.add_table(f"quarantine/{USERS}", bad.append_column(schema.RULE, rule))
    if len(known):
        writer.add_table(USERS, known.combine_chunks())
    counts = {
        "read": len(raw),
        "kept": len(known),
        "quarantined": len(bad),
        "dropped": {"no_interactions": len(named) - len(known)},
        "reasons": {NAMELESS: len(bad)} if len(bad) else {},
        "examples": {},
        "warnings": {},
    }
    return {TABLE: counts}


def _read(data: str, columns: Sequence[str], user_key: bytes | None) -> pa.Table:
    """User ids, or pseudonyms, and the columns, all as text."""
    if schema.USER_ID in columns:
        raise ValueError(f"prepare.user_columns names {schema.USER_ID}: name what groups users")
    wanted = {name: Column(_can_be_text, "text, a number or a date", True) for name in columns}
    key = {schema.USER_ID: INTERACTION_COLUMNS[schema.USER_ID]}
    source = find_source(data, TABLE, key | wanted)
    raw = read_source(source)
    ids = users_of(raw) if user_key is None else pseudonymise(raw[schema.USER_ID], user_key)
    texts = {name: pc.cast(raw[name], pa.large_string()) for name in columns}
    return pa.table({schema.USER_ID: ids} | texts)


def _can_be_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind))


def _check_distinct(data: str, users: pa.Table) -> None:
    counts = pc.value_counts(users[schema.USER_ID])
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ValueError(
            f"{data}: table '{TABLE}' has {len(twice)} users more than once, such as "
            f"'{twice[0]['values']}': give each user one row"
        )


def _is_known(users: pa.ChunkedArray, writer: ArtifactWriter) -> pa.Array:
    """Which users have a row in the dataset; files are read one by one, users' column alone."""

    def known_in(name: str) -> np.ndarray:
        stream = pa.BufferReader(writer.read_bytes(name))
        found = users_of(pq.read_table(stream, columns=[schema.USER_ID]))
        return pc.is_in(users, pc.unique(found)).to_numpy()

    names = [n for folder in (EVENTS, *schema.SPLITS) for n in writer.names(f"{folder}/")]
    known = np.zeros(len(users), dtype=bool)
    with ThreadPoolExecutor(THREADS) as pool:
        for mask in pool.map(known_in, names):
            known |= mask
    return pa.array(known)

"""Raw tables: which files there are, whether they are whole, and whether the columns fit.

Only Parquet footers are read here; rows are read by Ray Data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from recsys import schema
from recsys.artifact import filesystem

TypeCheck = Callable[[pa.DataType], bool]


def _is_id(kind: pa.DataType) -> bool:
    return _is_string(kind) or pa.types.is_integer(kind)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind)


def _is_integer(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_null(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or _is_integer(kind)


@dataclass(frozen=True)
class Column:
    """What a raw column must be."""

    accepts: TypeCheck
    allowed: str
    required: bool = False


INTERACTION_COLUMNS = {
    schema.USER_ID: Column(_is_id, "string or integer", required=True),
    schema.ITEM_ID: Column(_is_id, "string or integer", required=True),
    schema.TIMESTAMP: Column(_is_time, "integer Unix seconds or a timestamp"),
    schema.EVENT: Column(_is_string, "string"),
    schema.VALUE: Column(_is_number, "a number"),
    schema.ORDER: Column(_is_integer, "integer"),
    schema.SPLIT: Column(_is_string, "string"),
}
ITEM_COLUMNS = {
    schema.ITEM_ID: Column(_is_id, "string or integer", required=True),
    "title": Column(_is_string, "string", required=True),
    "description": Column(_is_string, "string"),
    "category": Column(_is_string, "string"),
    "brand": Column(_is_string, "string"),
    "price": Column(_is_number, "a number"),
}


@dataclass(frozen=True)
class Source:
    """The files of one raw table, all whole and of one schema.

    `paths` lie within `fs`; `num_bytes` is the uncompressed size of the columns read;
    `fingerprint` changes when a file is added, removed or rewritten.
    """

    fs: pafs.FileSystem
    paths: list[str]
    columns: list[str]
    num_rows: int
    num_bytes: int
    fingerprint: str


def find_source(data: str, name: str, columns: dict[str, Column]) -> Source:
    """The table `name` under `data`: `<name>.parquet`, or every Parquet file below `<name>/`.

    Raises:
        ValueError: there are no files or no rows, a file is not whole Parquet, or a column is
            missing or of the wrong type; names the file and the column.
    """
    fs, paths = _list_files(data, name)
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(lambda path: _read_footer(fs, path), paths))
    for path, footer in zip(paths, footers, strict=True):
        _check_columns(path, footer.schema.to_arrow_schema(), columns)
    _check_same_types(paths, footers, columns)
    present = [c for c in columns if c in footers[0].schema.to_arrow_schema().names]
    num_rows = sum(footer.num_rows for footer in footers)
    if num_rows == 0:
        raise ValueError(f"{data}: table '{name}' has no rows")
    return Source(
        fs, paths, present, num_rows, _num_bytes(footers, present), _fingerprint(fs, paths)
    )


def _list_files(data: str, name: str) -> tuple[pafs.FileSystem, list[str]]:
    fs, root = filesystem(data)
    single = f"{root}/{name}.parquet"
    if fs.get_file_info(single).type == pafs.FileType.File:
        return fs, [single]
    selector = pafs.FileSelector(f"{root}/{name}", recursive=True, allow_not_found=True)
    paths = sorted(i.path for i in fs.get_file_info(selector) if i.path.endswith(".parquet"))
    if not paths:
        raise ValueError(f"{data} has neither '{name}.parquet' nor Parquet files below '{name}/'")
    return fs, paths


def _read_footer(fs: pafs.FileSystem, path: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path, filesystem=fs)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path} is empty, truncated or not Parquet, or cannot be reached: {error}"
        ) from error


def _check_columns(path: str, found: pa.Schema, columns: dict[str, Column]) -> None:
    for name, column in columns.items():
        if name not in found.names:
            if column.required:
                raise ValueError(
                    f"{path}: column '{name}' is missing; it has: {', '.join(found.names)}"
                )
        elif not column.accepts(found.field(name).type):
            raise ValueError(
                f"{path}: column '{name}' is {found.field(name).type}; it must be {column.allowed}"
            )


def _check_same_types(
    paths: list[str], footers: list[pq.FileMetaData], columns: dict[str, Column]
) -> None:
    def kinds(footer: pq.FileMetaData) -> dict[str, str]:
        arrow = footer.schema.to_arrow_schema()
        return {n: str(arrow.field(n).type) for n in columns if n in arrow.names}

    first = kinds(footers[0])
    for path, footer in zip(paths, footers, strict=True):
        if kinds(footer) != first:
            raise ValueError(
                f"{path} has columns {kinds(footer)}, but {paths[0]} has {first}: "
                "give every file of a table one schema"
            )


def _num_bytes(footers: list[pq.FileMetaData], columns: list[str]) -> int:
    return sum(
        group.column(c).total_uncompressed_size
        for footer in footers
        for group in (footer.row_group(i) for i in range(footer.num_row_groups))
        for c in range(group.num_columns)
        if group.column(c).path_in_schema in columns
    )


def _fingerprint(fs: pafs.FileSystem, paths: list[str]) -> str:
    infos = fs.get_file_info(paths)
    seen = [(info.path, info.size, info.mtime_ns) for info in infos]
    return hashlib.sha256(repr(seen).encode()).hexdigest()

"""Raw tables: which files there are, whether they are whole, and whether the columns fit.

Only Parquet footers are read here; rows are read by Ray Data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from recsys import schema
from recsys.data.timestamps import unit_of
from recsys.storage import filesystem, retried, storage_errors

PIECE_BYTES, PIECE_ROWS = 64 << 20, 1_000_000
"""What a task reads at once, where row groups are no larger: uncompressed bytes, and rows, since a
column of few distinct values takes many times its bytes in memory."""
NUM_NAMED = 5
"""Files named where a report points at some."""

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
class RawFile:
    """One file of a raw table: its path below the data directory, size, and time of change."""

    path: str
    size: int
    changed_ns: int


@dataclass(frozen=True)
class Piece:
    """Row groups `first` to `last` (not included) of one file: what one task reads."""

    path: str
    first: int
    last: int


@dataclass(frozen=True)
class Source:
    """The files of one raw table that are to be read, all whole and of one schema.

    `files` are all files of the table; `paths` lie within `fs` and are those to be read, with
    `num_rows` rows in `pieces`. `columns` are those of ours that are there. `time_units` names for
    each unit that timestamps seem to be in a few files that have it.
    """

    fs: pafs.FileSystem
    files: list[RawFile]
    paths: list[str]
    pieces: list[Piece]
    columns: list[str]
    num_rows: int
    time_units: dict[str, list[str]]

    @property
    def fingerprint(self) -> str:
        """Changes when a file is added, removed or rewritten."""
        return fingerprint_of(self.files)


def find_source(
    data: str, name: str, columns: dict[str, Column], done: Collection[RawFile] = ()
) -> Source:
    """The table `name` under `data`: `<name>.parquet`, or every Parquet file below `<name>/`.

    Folders such as `date=2026-01-31/` may stand in between; files whose names begin with `.` or
    `_` are writers' scratch and are left out. Files that are `done` are not opened.

    Raises:
        ValueError: there are no files or no rows, a file is not whole Parquet, or a column is
            missing or of the wrong type, or differs between files; names the file and the column.
    """
    fs, files, paths = _list_files(data, name)
    known = set(done)
    fresh = [n for n, file in enumerate(files) if file not in known]
    new_paths = [paths[n] for n in fresh]
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(lambda path: _read_footer(fs, path), new_paths))
    for path, footer in zip(new_paths, footers, strict=True):
        _check_columns(path, footer.schema.to_arrow_schema(), columns)
    _check_same_types(new_paths, footers, columns)
    num_rows = sum(footer.num_rows for footer in footers)
    if num_rows == 0 and not done:
        raise ValueError(f"{data}: table '{name}' has no rows")
    names = footers[0].schema.to_arrow_schema().names if footers else []
    present = [column for column in columns if column in names]
    units = _time_units([files[n] for n in fresh], footers)
    pieces = _cut(new_paths, footers, present)
    return Source(fs, files, new_paths, pieces, present, num_rows, units)


def list_files(data: str, name: str) -> list[RawFile]:
    """The files of a raw table; none is opened.

    Raises:
        ValueError: there are none.
    """
    return _list_files(data, name)[1]


def fingerprint_of(files: list[RawFile]) -> str:
    """Changes when a file is added, removed or rewritten."""
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _list_files(data: str, name: str) -> tuple[pafs.FileSystem, list[RawFile], list[str]]:
    fs, root = filesystem(data)
    with storage_errors(f"{data}/{name}"):
        found = retried(lambda: _find_files(fs, root, name))
    if not found:
        raise ValueError(f"{data} has neither '{name}.parquet' nor Parquet files below '{name}/'")
    found.sort(key=lambda info: info.path)
    files = [RawFile(i.path.removeprefix(f"{root}/"), i.size, i.mtime_ns) for i in found]
    return fs, files, [info.path for info in found]


def _find_files(fs: pafs.FileSystem, root: str, name: str) -> list[pafs.FileInfo]:
    alone = fs.get_file_info(f"{root}/{name}.parquet")
    if alone.is_file:
        return [alone]
    selector = pafs.FileSelector(f"{root}/{name}", recursive=True, allow_not_found=True)
    return [info for info in fs.get_file_info(selector) if _is_data(info.base_name)]


def _cut(paths: list[str], footers: list[pq.FileMetaData], columns: list[str]) -> list[Piece]:
    """All row groups in pieces of about `PIECE_BYTES` of the columns that are read."""
    pieces = []
    for path, footer in zip(paths, footers, strict=True):
        first, size = 0, 0.0
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            more = max(_num_bytes(group, columns) / PIECE_BYTES, group.num_rows / PIECE_ROWS)
            if size and size + more > 1:
                pieces.append(Piece(path, first, number))
                first, size = number, 0.0
            size += more
        pieces.append(Piece(path, first, footer.num_row_groups))
    return pieces


def _num_bytes(group: pq.RowGroupMetaData, columns: list[str]) -> int:
    chunks = (group.column(number) for number in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema in columns)


def read_piece(fs: pafs.FileSystem, piece: Piece, columns: list[str]) -> pa.Table:
    """The rows of one piece; where it breaks off, the whole piece is read again.

    Raises:
        ValueError: the file is not whole Parquet.
        StorageError: it cannot be reached.
    """
    groups = list(range(piece.first, piece.last))

    def read() -> pa.Table:
        with fs.open_input_file(piece.path) as file:
            return pq.ParquetFile(file, pre_buffer=True).read_row_groups(groups, columns)

    with parquet_errors(piece.path):
        return retried(read)


def read_source(source: Source) -> pa.Table:
    """All rows of a table that one process can hold.

    Raises:
        ValueError: a file is not whole Parquet.
        StorageError: it cannot be reached.
    """
    with parquet_errors(source.paths[0]):
        return retried(
            lambda: pq.ParquetDataset(source.paths, filesystem=source.fs).read(source.columns)
        )


def _is_data(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith((".", "_"))


def _read_footer(fs: pafs.FileSystem, path: str) -> pq.FileMetaData:
    with parquet_errors(path):
        return retried(lambda: pq.read_metadata(path, filesystem=fs))


@contextmanager
def parquet_errors(path: str) -> Iterator[None]:
    """Name the file in whatever goes wrong while Parquet is read.

    Raises:
        ValueError: the file is not whole Parquet.
        StorageError: it cannot be reached.
    """
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        # Some broken footers are an OSError of Thrift's, like trouble on the way to the file.
        if isinstance(error, pa.ArrowInvalid) or "thrift" in str(error):
            raise ValueError(f"{path} is empty, truncated or not Parquet: {error}") from error
        with storage_errors(path):
            raise


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

    first = kinds(footers[0]) if footers else {}
    for path, footer in zip(paths, footers, strict=True):
        if kinds(footer) != first:
            raise ValueError(
                f"{path} has columns {kinds(footer)}, but {paths[0]} has {first}: "
                "give every file of a table one schema"
            )


def _time_units(files: list[RawFile], footers: list[pq.FileMetaData]) -> dict[str, list[str]]:
    """Files by the unit that the least or greatest timestamp of a row group has."""
    units: dict[str, list[str]] = {}
    for file, footer in zip(files, footers, strict=True):
        for unit in {unit_of(time) for time in _time_bounds(footer)}:
            units.setdefault(unit, []).append(file.path)
    return {unit: paths[:NUM_NAMED] for unit, paths in units.items()}


def _time_bounds(footer: pq.FileMetaData) -> Iterator[int]:
    position = footer.schema.names.index(schema.TIMESTAMP) if _has_time(footer) else None
    for number in range(footer.num_row_groups if position is not None else 0):
        statistics = footer.row_group(number).column(position).statistics
        if statistics is not None and statistics.has_min_max and isinstance(statistics.min, int):
            yield from (t for t in (statistics.min, statistics.max) if t >= 0)


def _has_time(footer: pq.FileMetaData) -> bool:
    return schema.TIMESTAMP in footer.schema.names

"""Files of any size to batches of text: delimited files, JSON lines, Parquet; gzip is noticed.

Every record either becomes a row of a batch or a fault with its line number: none is lost.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

LINE = "_line"
BATCH_ROWS = 50_000
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that is no row: the line where it begins (from 1), why, and its text."""

    line: int
    reason: str
    content: str


@dataclass(frozen=True)
class Batch:
    """Some records of one file: `rows` holds their fields as text, and `LINE`."""

    path: Path
    rows: pl.DataFrame
    faults: list[Fault]


@dataclass(frozen=True)
class Layout:
    """How a delimited file is written. Of `encodings` each line takes the first that fits."""

    delimiter: str = ","
    quoted: bool = True
    encodings: tuple[str, ...] = ("utf-8",)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked if it is gzip.

    Raises:
        ValueError: the gzip is damaged or ends too early.
    """
    try:
        with path.open("rb") as raw:
            if raw.peek(2)[:2] != _GZIP_MAGIC:
                yield raw
                return
            with gzip.open(raw) as unpacked:
                yield cast(BinaryIO, unpacked)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not whole gzip: {error}: fetch it again") from error


@dataclass
class _Lines:
    # Decoded lines of a file, and what was read since the record at hand began.
    stream: BinaryIO
    encodings: tuple[str, ...]
    number: int = 0
    content: list[str] = field(default_factory=list[str])
    undecodable: bool = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = next(self.stream)
        self.number += 1
        text = self._decode(raw)
        text = text.removeprefix("\ufeff") if self.number == 1 else text
        self.content.append(text)
        return text

    def _decode(self, raw: bytes) -> str:
        for encoding in self.encodings:
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError:
                continue
        self.undecodable = True
        return raw.decode(self.encodings[0], errors="backslashreplace")

    def begin(self) -> int:
        self.content, self.undecodable = [], False
        return self.number + 1

    def fault(self, line: int, reason: str) -> Fault:
        if self.undecodable:
            reason = f"not {' or '.join(self.encodings)}"
        return Fault(line, reason, "".join(self.content).rstrip("\r\n"))


_Record = tuple[int, Sequence[str | None]]


def header_of(path: Path, layout: Layout) -> list[str]:
    """The column names in the first line.

    Raises:
        ValueError: the file is empty, or names a column twice.
    """
    with open_bytes(path) as stream:
        first = next(_split_records(_Lines(stream, layout.encodings), layout), None)
    if first is None or isinstance(first, Fault):
        raise ValueError(f"{path} has no header line")
    names = [str(name).strip() for name in first[1]]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} names a column twice: {', '.join(names)}")
    return names


def read_delimited(
    path: Path,
    layout: Layout,
    columns: Sequence[str] | None = None,
    needed: Sequence[str] = (),
) -> Iterator[Batch]:
    """Batches of a delimited file; without `columns` its first line names them.

    Raises:
        ValueError: there is no header, or it lacks a `needed` column.
    """
    names = columns or header_of(path, layout)
    _check_present(path, names, needed)
    with open_bytes(path) as stream:
        lines = _Lines(stream, layout.encodings)
        records = _split_records(lines, layout)
        if columns is None:
            next(records)
        yield from _batches(path, names, _of_width(records, len(names), lines))


def _split_records(lines: _Lines, layout: Layout) -> Iterator[_Record | Fault]:
    if layout.quoted:
        parser = csv.reader(lines, delimiter=layout.delimiter, strict=True)
    else:
        parser = (line.rstrip("\r\n").split(layout.delimiter) for line in lines)
    while True:
        line = lines.begin()
        try:
            fields = next(parser)
        except StopIteration:
            return
        except csv.Error as error:
            yield lines.fault(line, f"not CSV: {error} (lines {line} to {lines.number})")
            continue
        if lines.undecodable:
            yield lines.fault(line, "")
        elif any(fields):
            yield line, fields


def _of_width(
    records: Iterable[_Record | Fault], width: int, lines: _Lines
) -> Iterator[_Record | Fault]:
    for record in records:
        if isinstance(record, Fault) or len(record[1]) == width:
            yield record
        else:
            yield lines.fault(record[0], f"{len(record[1])} fields instead of {width}")


def read_json_lines(path: Path, fields: Mapping[str, str]) -> Iterator[Batch]:
    """Batches of a JSON-lines file; `fields` maps a key to what joins the parts of a list."""
    with open_bytes(path) as stream:
        lines = _Lines(stream, ("utf-8",))
        yield from _batches(path, list(fields), _json_records(lines, fields))


def _json_records(lines: _Lines, fields: Mapping[str, str]) -> Iterator[_Record | Fault]:
    while True:
        line = lines.begin()
        try:
            text = next(lines)
        except StopIteration:
            return
        if not text.strip():
            continue
        try:
            yield line, _pick(text, fields)
        except (ValueError, RecursionError) as error:
            yield lines.fault(line, str(error))
            continue


def _pick(text: str, fields: Mapping[str, str]) -> list[str | None]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    values = [_as_text(key, record.get(key), joint) for key, joint in fields.items()]
    if "\\u" in text:
        _check_surrogates(values)
    return values


def _as_text(key: str, value: Any, joint: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return joint.join(part for v in value if (part := _as_text(key, v, joint)))
    raise ValueError(f"'{key}' is an object; text, a number or a list is needed")


def _check_surrogates(values: Iterable[str | None]) -> None:
    try:
        "".join(value or "" for value in values).encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which is no character") from error


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Batch]:
    """Batches of a Parquet file as text; `LINE` is the row's number. Times become Unix seconds.

    Raises:
        ValueError: the file is not whole Parquet, or a column is missing or cannot be text.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_present(path, file.schema_arrow.names, columns)
            yield Batch(path, _frame(columns, []), [])
            start = 1
            for part in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                arrays = {name: _text_array(path, name, part[name]) for name in columns}
                rows = pl.DataFrame(pa.table(arrays)).with_row_index(LINE, start)
                yield Batch(path, rows, [])
                start += len(part)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is empty, truncated or not Parquet: {error}") from error


def _check_present(path: Path, found: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has: {', '.join(found)}")


def _text_array(path: Path, name: str, column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pl.Series(column).cast(pl.List(pl.String)).list.join(" ").to_arrow()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    try:
        return column.cast(pa.large_string())
    except pa.ArrowNotImplementedError as error:
        raise ValueError(f"{path}: column '{name}' is {kind}; it must be plain values") from error


def _batches(
    path: Path, columns: Sequence[str], records: Iterable[_Record | Fault]
) -> Iterator[Batch]:
    """At least one batch, which is empty where the file is: its table exists all the same."""
    found: list[_Record] = []
    faults: list[Fault] = []
    for record in records:
        if isinstance(record, Fault):
            faults.append(record)
        else:
            found.append(record)
        if len(found) + len(faults) >= BATCH_ROWS:
            yield Batch(path, _frame(columns, found), faults)
            found, faults = [], []
    yield Batch(path, _frame(columns, found), faults)


def _frame(columns: Sequence[str], records: Sequence[_Record]) -> pl.DataFrame:
    values = (
        zip(*(fields for _, fields in records), strict=True) if records else [()] * len(columns)
    )
    frame = pl.DataFrame(
        {name: pl.Series(v, dtype=pl.String) for name, v in zip(columns, values, strict=True)}
    )
    return frame.with_columns(pl.Series(LINE, [line for line, _ in records], dtype=pl.UInt32))

"""Any CSV, JSON-lines or Parquet file, by a mapping of column names.

A file with a user column is interactions; one with an item id and a title is items. Other columns
are not read.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.data.importers.fields import (
    Field,
    TimeUnit,
    identifier,
    integer,
    number,
    price,
    seconds,
    text,
)
from recsys.data.importers.files import pick
from recsys.data.importers.records import (
    Batch,
    Layout,
    header_of,
    open_bytes,
    read_delimited,
    read_json_lines,
    read_parquet,
)
from recsys.data.importers.tables import RawTables

INTERACTION_FIELDS: dict[str, Callable[[str], Field]] = {
    schema.USER_ID: identifier,
    schema.ITEM_ID: identifier,
    schema.EVENT: text,
    schema.VALUE: number,
    schema.ORDER: integer,
    schema.SPLIT: text,
}
ITEM_FIELDS: dict[str, Callable[[str], Field]] = {
    schema.ITEM_ID: identifier,
    **dict.fromkeys(schema.ITEM_TEXT_COLUMNS, text),
    "price": price,
}
COLUMNS = (*INTERACTION_FIELDS, schema.TIMESTAMP, *schema.ITEM_TEXT_COLUMNS, "price")
_PARQUET, _JSON = r".*\.(parquet|pq)", r".*\.(jsonl|ndjson|json)(\.gz)?"
_CSV = r".*\.(csv|tsv|txt)(\.gz)?"


KEY_LINES = 1_000
"""Lines of a JSON file in which a key must appear to be known as a column."""


@dataclass(frozen=True)
class Mapped:
    """How tabular files are read."""

    columns: tuple[str, ...] = ()
    """<our column>=<the file's>, such as user_id=reviewerID; one not named is called as ours."""
    time_unit: TimeUnit = "s"
    """Unit of numeric timestamps, or `iso` for ISO 8601 text (UTC where it has no offset)."""
    delimiter: str = ""
    """Between the fields of a CSV file; by default a tab for .tsv and a comma for the rest."""
    encoding: str = "utf-8"
    """Of CSV files."""

    def names(self) -> dict[str, str]:
        """Our column -> the file's.

        Raises:
            ValueError: an entry is not `<ours>=<theirs>`, or names a column we do not have.
        """
        pairs = [entry.partition("=") for entry in self.columns]
        for ours, _, theirs in pairs:
            if ours not in COLUMNS or not theirs:
                raise ValueError(
                    f"columns: '{ours}={theirs}' is not <ours>=<the file's> with ours one of "
                    f"{', '.join(COLUMNS)}"
                )
        return {ours: theirs for ours, _, theirs in pairs}


def import_tabular(files: Sequence[Path], tables: RawTables, mapped: Mapped) -> None:
    """Read every CSV, TSV, JSON-lines and Parquet file.

    Raises:
        ValueError: the mapping does not fit, or a file is neither table.
    """
    _check_encoding(mapped.encoding)
    names = {path: _names(path, mapped) for path in pick(files, f"{_PARQUET}|{_JSON}|{_CSV}")}
    for theirs in mapped.names().values():
        if names and not any(theirs in found for found in names.values()):
            raise ValueError(f"columns: no file has '{theirs}'; they have: {_all(names)}")
    for path, found in names.items():
        present = _present(path, found, mapped.names())
        table, fields = _fields(path, present, mapped)
        for batch in _read(path, [present[name] for name in fields], mapped):
            tables.add(table, batch, fields)


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ValueError(f"encoding: {error}") from error


def _all(names: Mapping[Path, Sequence[str]]) -> str:
    return ", ".join(dict.fromkeys(name for found in names.values() for name in found))


def _present(path: Path, found: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """Our columns that the file has -> its own names."""
    wanted = {ours: named.get(ours, ours) for ours in COLUMNS}
    present = {ours: theirs for ours, theirs in wanted.items() if theirs in found}
    if schema.ITEM_ID not in present or not {schema.USER_ID, "title"} & set(present):
        raise ValueError(
            f"{path} has {', '.join(found)}: neither a user_id and an item_id (interactions) nor "
            "an item_id and a title (items); name them with --columns <ours>=<the file's>"
        )
    return present


def _fields(path: Path, present: Mapping[str, str], mapped: Mapped) -> tuple[str, dict[str, Field]]:
    kinds = _parquet_types(path)
    for ours in {schema.USER_ID, schema.ITEM_ID} & set(present):
        if pa.types.is_floating(kinds.get(present[ours], pa.null())):
            raise ValueError(f"{path}: '{present[ours]}' is a float, which cannot be an id")
    if schema.USER_ID not in present:
        return "items", {o: make(present[o]) for o, make in ITEM_FIELDS.items() if o in present}
    fields = {o: make(present[o]) for o, make in INTERACTION_FIELDS.items() if o in present}
    if schema.TIMESTAMP in present:
        kind = kinds.get(present[schema.TIMESTAMP], pa.null())
        is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        unit = "s" if is_time else mapped.time_unit
        fields[schema.TIMESTAMP] = seconds(present[schema.TIMESTAMP], unit)
    return "interactions", fields


def _parquet_types(path: Path) -> dict[str, pa.DataType]:
    if not re.fullmatch(_PARQUET, path.name):
        return {}
    try:
        return {column.name: column.type for column in pq.read_schema(path)}
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is empty, truncated or not Parquet: {error}") from error


def _layout(path: Path, mapped: Mapped) -> Layout:
    delimiter = mapped.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
    return Layout(delimiter, quoted=len(delimiter) == 1, encodings=(mapped.encoding,))


def _names(path: Path, mapped: Mapped) -> list[str]:
    if re.fullmatch(_PARQUET, path.name):
        return list(_parquet_types(path))
    if re.fullmatch(_JSON, path.name):
        return _keys(path)
    return header_of(path, _layout(path, mapped))


def _keys(path: Path) -> list[str]:
    """Keys of the JSON objects in the first `KEY_LINES` lines."""
    keys: dict[str, None] = {}
    with open_bytes(path) as stream:
        for line in islice(stream, KEY_LINES):
            with suppress(ValueError):
                record = json.loads(line)
                keys |= dict.fromkeys(record if isinstance(record, dict) else ())
    if not keys:
        raise ValueError(f"{path} has no JSON object in its first {KEY_LINES} lines")
    return list(keys)


def _read(path: Path, names: Sequence[str], mapped: Mapped) -> Iterator[Batch]:
    if re.fullmatch(_PARQUET, path.name):
        return read_parquet(path, list(dict.fromkeys(names)))
    if re.fullmatch(_JSON, path.name):
        return read_json_lines(path, dict.fromkeys(names, " "))
    return read_delimited(path, _layout(path, mapped))

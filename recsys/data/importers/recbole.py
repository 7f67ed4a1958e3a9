"""RecBole atomic files: https://recbole.io/docs/user_guide/data/atomic_files.html.

Tab-separated, without quoting; the header is `name:type` with type token, token_seq, float or
float_seq. The words of a token_seq are separated by spaces and stay one text. `.user` and the
graph files hold nothing a raw table has, and are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recsys import schema
from recsys.data.importers.fields import Field, identifier, number, price, seconds, text
from recsys.data.importers.files import pick
from recsys.data.importers.records import Layout, header_of, read_delimited
from recsys.data.importers.tables import RawTables

_TABS = Layout("\t", quoted=False)
TYPES = ("token", "token_seq", "float", "float_seq")
ITEM_NAMES = {
    schema.ITEM_ID: ("item_id", "movie_id", "business_id", "venue_id", "artist_id", "product_id"),
    "title": ("title", "movie_title", "item_name", "name", "product_name"),
    "description": ("description", "text", "abstract"),
    "category": ("categories", "category", "genre", "genres", "class"),
    "brand": ("brand", "store"),
    "price": ("price", "sales_price"),
}
"""What published sets call the columns of a raw table; the first that is there is taken."""


def import_recbole(files: Sequence[Path], tables: RawTables) -> None:
    """Read every `.item` and `.inter` file.

    Raises:
        ValueError: a header is not `name:type`, or has no user, item or title.
    """
    for path in pick(files, r".*\.item"):
        _read(path, tables, "items", _item(path, _header(path)))
    for path in pick(files, r".*\.inter"):
        _read(path, tables, "interactions", _interaction(path, _header(path)))


def _read(path: Path, tables: RawTables, table: str, fields: dict[str, Field]) -> None:
    plain = {f"{name}:{kind}": name for name, kind in _header(path).items()}
    for batch in read_delimited(path, _TABS):
        tables.add(table, replace(batch, rows=batch.rows.rename(plain)), fields)


def _header(path: Path) -> dict[str, str]:
    columns = [entry.rpartition(":") for entry in header_of(path, _TABS)]
    for name, _, kind in columns:
        if not name or kind not in TYPES:
            raise ValueError(
                f"{path}: '{name}:{kind}' in the header is not <name>:<type>, "
                f"with a type of {', '.join(TYPES)}"
            )
    return {name: kind for name, _, kind in columns}


def _interaction(path: Path, header: dict[str, str]) -> dict[str, Field]:
    item = _find(path, header, schema.ITEM_ID, ITEM_NAMES[schema.ITEM_ID])
    fields = {
        schema.USER_ID: identifier(_find(path, header, schema.USER_ID, ("user_id",))),
        schema.ITEM_ID: identifier(item),
    }
    if "timestamp" in header:
        fields[schema.TIMESTAMP] = seconds("timestamp", "s")
    if "rating" in header:
        fields[schema.VALUE] = number("rating")
    return fields


def _item(path: Path, header: dict[str, str]) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for column, names in ITEM_NAMES.items():
        if column in (schema.ITEM_ID, "title") or any(name in header for name in names):
            name = _find(path, header, column, names)
            make = {schema.ITEM_ID: identifier, "price": price}.get(column, text)
            fields[column] = make(name)
    return fields


def _find(path: Path, header: dict[str, str], column: str, names: tuple[str, ...]) -> str:
    for name in names:
        if name in header:
            return name
    raise ValueError(
        f"{path} has no {column}: none of {', '.join(names)} is in its header, which names "
        f"{', '.join(header)}: rename a column or use --format tabular"
    )

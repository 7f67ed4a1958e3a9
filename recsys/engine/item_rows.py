"""Items as a client tells them -> tables like those that prepare reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from recsys import schema
from recsys.data.item_rules import LANGUAGE
from recsys.engine.catalogue import Catalogue
from recsys.index.item_columns import TITLE, attribute_columns

READ_ONLY = "description"
"""What an item is read by and an index does not keep."""


def columns_of(catalogue: Catalogue, text_fields: Sequence[str]) -> pa.Schema:
    """What may be told of an item: its title, its attributes, and the description if it is read."""
    names = [TITLE, *(n for n in attribute_columns(catalogue.items) if n != LANGUAGE)]
    fields = [catalogue.items.schema.field(name) for name in names]
    if READ_ONLY in text_fields:
        fields.append(pa.field(READ_ONLY, pa.large_string()))
    return pa.schema([pa.field(schema.ITEM_ID, pa.large_string()), *fields])


def check_columns(row: Mapping[str, object], columns: pa.Schema) -> None:
    """Hold that a row has no column but these.

    Raises:
        ValueError: it has; names what is allowed.
    """
    allowed = [name for name in columns.names if name != schema.ITEM_ID]
    if wrong := sorted(set(row) - set(allowed)):
        raise ValueError(f"items have no column {', '.join(wrong)}: name {', '.join(allowed)}")


def raw_items(rows: Mapping[str, Mapping[str, object]], columns: pa.Schema) -> pa.Table:
    """Rows by item id as a table; what a row does not tell is null, further columns are left out.

    Raises:
        ValueError: a value is of another type than its column.
    """
    whole = [{**row, schema.ITEM_ID: item_id} for item_id, row in rows.items()]
    try:
        return pa.Table.from_pylist(whole, columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"an item's value is of another type than its column: {error}") from error


def kept_rows(items: pa.Table, catalogue: Catalogue) -> list[dict[str, object]]:
    """The rows of cleaned items as `Catalogue.with_items` takes them."""
    kept = [n for n in items.column_names if n in catalogue.items.column_names]
    return items.select([n for n in kept if n != schema.ITEM_ID]).to_pylist()

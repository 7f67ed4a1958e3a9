"""The columns of items that an index keeps: what can be shown of them, and filtered by."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from recsys import schema

Kind = Literal["text", "number", "boolean"]
TITLE = "title"
ALWAYS = (schema.ITEM_ID, TITLE, schema.TRAIN_COUNT, schema.REMOVED)
LEFT_OUT = ("description", schema.ITEM_INDEX, schema.TEXT, schema.TOKEN_IDS)
"""Long texts are for the encoder: of 10,000 letters each, a million take 10 GB in every replica."""


def kept_columns(items: pa.Table) -> list[str]:
    """The columns of a dataset's items that its index keeps; `attribute_columns` are among them."""
    names = (*ALWAYS, *attribute_columns(items))
    return [name for name in items.column_names if name in names]


def attribute_columns(items: pa.Table) -> list[str]:
    """The columns of text, numbers and booleans that say what an item is.

    Lists, structs, dates and bytes are none, and neither are an item's id and title.
    """
    known = (*ALWAYS, *LEFT_OUT)
    names = [name for name in items.column_names if name not in known]
    return [name for name in names if kind_of(items.schema.field(name).type) is not None]


def kind_of(of: pa.DataType) -> Kind | None:
    """What values of a type are; None for what is none of these."""
    types = pa.types
    if types.is_dictionary(of):
        of = of.value_type
    if types.is_string(of) or types.is_large_string(of) or types.is_string_view(of):
        return "text"
    if types.is_integer(of) or types.is_floating(of) or types.is_decimal(of):
        return "number"
    return "boolean" if types.is_boolean(of) else None

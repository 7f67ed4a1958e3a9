"""Amazon Shopping Queries (ESCI): https://github.com/amazon-science/esci-data.

Judged products for queries, without users: `items` and `queries` are written and no
`interactions`. One product id means different texts in different locales, so an item's id is
`<locale>_<product id>`. A description is the product's description, bullet points and colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys import schema
from recsys.data.importers.fields import Field, identifier, integer, joined, of_expr, text
from recsys.data.importers.files import pick
from recsys.data.importers.records import read_parquet
from recsys.data.importers.tables import RawTables

GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
"""Gain of exact, substitute, complement, irrelevant (Reddy et al. 2022, arXiv 2206.06588)."""
_EXAMPLE = (
    "query_id",
    "query",
    "product_id",
    "product_locale",
    "esci_label",
    "split",
    "small_version",
)
_ABOUT = ("product_description", "product_bullet_point", "product_color")
_PRODUCT = ("product_id", "product_locale", "product_title", "product_brand", *_ABOUT)


def import_esci(files: Sequence[Path], tables: RawTables) -> None:
    """Read `*_products.parquet` and `*_examples.parquet`."""
    for path in pick(files, r".*products\.parquet"):
        for batch in read_parquet(path, _PRODUCT):
            tables.add("items", batch, _item())
    for path in pick(files, r".*examples\.parquet"):
        for batch in read_parquet(path, _EXAMPLE):
            tables.add("queries", batch, _judgement())


def _item_id() -> Field:
    value = pl.concat_str(["product_locale", "product_id"], separator="_")
    return Field(value, value.is_null(), "no product_id or product_locale")


def _item() -> dict[str, Field]:
    return {
        schema.ITEM_ID: _item_id(),
        "title": text("product_title"),
        "description": joined(_ABOUT, " "),
        "brand": text("product_brand"),
    }


def _judgement() -> dict[str, Field]:
    gain = pl.col("esci_label").replace_strict(GAINS, default=None, return_dtype=pl.Float64)
    return {
        "query_id": identifier("query_id"),
        "query": identifier("query"),
        schema.ITEM_ID: _item_id(),
        "relevance": Field(gain, gain.is_null(), "esci_label is not E, S, C or I"),
        "locale": of_expr(pl.col("product_locale")),
        schema.SPLIT: text("split"),
        "small_version": integer("small_version"),
    }

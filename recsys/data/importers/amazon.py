"""Amazon Reviews: https://nijianmo.github.io/amazon (2018), https://amazon-reviews-2023.github.io.

Reviews become interactions whose value is the number of stars. An item's description is its
description and its bullet points. A price that is no price is left empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys import schema
from recsys.data.importers.fields import (
    Field,
    TimeUnit,
    first_of,
    identifier,
    joined,
    number,
    price,
    seconds,
    text,
)
from recsys.data.importers.files import pick
from recsys.data.importers.records import Layout, read_delimited, read_json_lines
from recsys.data.importers.tables import RawTables

_META = r"meta_.*\.jsonl?(\.gz)?"
_REVIEWS = r"(?!meta_).*\.jsonl?(\.gz)?"
_RATINGS = r".*\.csv(\.gz)?"
_PATH, _SPACE = " > ", " "


_REVIEW_2018 = ("reviewerID", "asin", "overall", "unixReviewTime")
_RATING_2018 = ("user", "item", "rating", "timestamp")
_RATING_2023 = ("user_id", "parent_asin", "rating", "timestamp")


def import_2018(files: Sequence[Path], tables: RawTables) -> None:
    """Read `meta_*.json.gz`, reviews `*.json.gz`, and ratings `*.csv` (item, user, stars, time)."""
    lists = {"category": _PATH, "description": _SPACE, "feature": _SPACE}
    item = _item("asin", text("category"), "feature", "brand")
    for path in pick(files, _META):
        for batch in read_json_lines(path, _plain("asin", "title", "brand", "price") | lists):
            tables.add("items", batch, item)
    for path in pick(files, _REVIEWS):
        for batch in read_json_lines(path, _plain(*_REVIEW_2018)):
            tables.add("interactions", batch, _rating(*_REVIEW_2018, unit="s"))
    for path in pick(files, _RATINGS):
        for batch in read_delimited(path, Layout(), ["item", "user", "rating", "timestamp"]):
            tables.add("interactions", batch, _rating(*_RATING_2018, unit="s"))


def import_2023(files: Sequence[Path], tables: RawTables) -> None:
    """Read `meta_*.jsonl.gz`, reviews `*.jsonl.gz`, and ratings `*.csv.gz` with a header.

    Items are products (`parent_asin`), as in the metadata; times are in milliseconds.
    """
    plain = _plain("parent_asin", "title", "main_category", "store", "price")
    lists = {"categories": _PATH, "description": _SPACE, "features": _SPACE}
    category = first_of(["categories", "main_category"])
    for path in pick(files, _META):
        for batch in read_json_lines(path, plain | lists):
            tables.add("items", batch, _item("parent_asin", category, "features", "store"))
    for path in pick(files, _REVIEWS):
        for batch in read_json_lines(path, _plain(*_RATING_2023)):
            tables.add("interactions", batch, _rating(*_RATING_2023, unit="ms"))
    for path in pick(files, _RATINGS):
        for batch in read_delimited(path, Layout(), needed=_RATING_2023):
            tables.add("interactions", batch, _rating(*_RATING_2023, unit="ms"))


def _plain(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, _SPACE)


def _item(item: str, category: Field, bullets: str, brand: str) -> dict[str, Field]:
    return {
        schema.ITEM_ID: identifier(item),
        "title": text("title"),
        "description": joined(["description", bullets], _SPACE),
        "category": category,
        "brand": text(brand),
        "price": price("price"),
    }


def _rating(user: str, item: str, stars: str, time: str, unit: TimeUnit) -> dict[str, Field]:
    return {
        schema.USER_ID: identifier(user),
        schema.ITEM_ID: identifier(item),
        schema.TIMESTAMP: seconds(time, unit),
        schema.VALUE: number(stars),
    }

"""MIND, the Microsoft News Dataset: https://msnews.github.io.

Every clicked news of an impression is an interaction of the event "click" at the impression's
time; news shown but not clicked are skipped and counted. The history column is not read: its
clicks have no time, and the same history stands in every impression of a user, so they could
neither be ordered among the clicks nor fall on one side of a split by time. Times name no zone
and are taken as UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys import schema
from recsys.data.importers.fields import Field, identifier, joined, of_expr, seconds_as, text
from recsys.data.importers.files import pick
from recsys.data.importers.records import LINE, Batch, Layout, read_delimited
from recsys.data.importers.tables import RawTables

_TABS = Layout("\t", quoted=False)  # Titles hold bare quotation marks.
_BEHAVIOR = ["impression", "user", "time", "history", "shown"]
_NEWS = ["news", "category", "subcategory", "title", "abstract", "url", "entities", "entities2"]
_TIME = "%m/%d/%Y %I:%M:%S %p"
_SHOWN = r"^(.+)-[01]$"


def import_mind(files: Sequence[Path], tables: RawTables) -> None:
    """Read every `behaviors.tsv` and `news.tsv`, of one split or of several."""
    for path in pick(files, r"news\.tsv(\.gz)?"):
        for batch in read_delimited(path, _TABS, _NEWS):
            tables.add("items", batch, _item())
    skipped = pl.col("shown").str.ends_with("-0")
    for path in pick(files, r"behaviors\.tsv(\.gz)?"):
        for batch in read_delimited(path, _TABS, _BEHAVIOR):
            tables.add("interactions", _one_row_a_news(batch), _click(), skipped)


def _one_row_a_news(batch: Batch) -> Batch:
    shown = pl.col("shown").str.strip_chars().str.split(" ")
    return replace(batch, rows=batch.rows.select(LINE, "user", "time", shown).explode("shown"))


def _click() -> dict[str, Field]:
    news = pl.col("shown").str.extract(_SHOWN)
    return {
        schema.USER_ID: identifier("user"),
        schema.ITEM_ID: Field(
            news, news.is_null(), "news shown is not written as <id>-0 or <id>-1"
        ),
        schema.TIMESTAMP: seconds_as("time", _TIME),
        schema.EVENT: of_expr(pl.lit("click")),
    }


def _item() -> dict[str, Field]:
    return {
        schema.ITEM_ID: identifier("news"),
        "title": text("title"),
        "description": text("abstract"),
        "category": joined(["category", "subcategory"], " > "),
    }

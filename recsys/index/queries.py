"""Search queries with the items each fits: read, joined by their words, and split.

A file has a row for each query and item: `query`, `item_id` and perhaps `relevance`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.data.sources import parquet_errors
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary
from recsys.index.lexical import MAX_QUERY_CHARS, split_words
from recsys.storage import read_bytes

QUERY, RELEVANCE, USED = "query", "relevance", "used"
SPLIT_SHARES = (("train", 0.6), ("valid", 0.2), ("test", 0.2))
"""What is learned from, what chooses settings, what is measured."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A text and the items that fit it: distinct indexes (T,), and how well each fits, above 0."""

    text: str
    items: np.ndarray
    relevance: np.ndarray


@dataclass(frozen=True)
class JudgedQueries:
    """Queries by split. `rows` counts the file's rows that were used and, by reason, left out."""

    by_split: dict[str, list[JudgedQuery]]
    rows: dict[str, int]


def read_queries(uri: str, items: pa.Table) -> JudgedQueries:
    """The queries of a Parquet file, with indexes of the items.

    Queries of the same words in any order, case and ending are one, by the name of the first, so
    that no split holds a query that another split holds in other letters. An item that fits one
    several times counts as it fits best.

    Raises:
        ValueError: the file is not Parquet, lacks a column, or not a row of it can be used.
    """
    rows, counted = _rows(uri, items)
    texts: dict[str, str] = {}
    fits: dict[str, dict[int, float]] = {}
    for text, item, relevance in rows:
        key = _key(text)
        texts.setdefault(key, text)
        found = fits.setdefault(key, {})
        found[item] = max(relevance, found.get(item, 0.0))
    if not texts:
        raise ValueError(f"{uri} has no query for an item of the dataset: {dict(counted)}")
    by_split: dict[str, list[JudgedQuery]] = {name: [] for name, _ in SPLIT_SHARES}
    for key in sorted(texts):
        by_split[_split_of(key)].append(_judged(texts[key], fits[key]))
    return JudgedQueries(by_split, dict(sorted(counted.items())))


def queries_digest(uri: str) -> str:
    """sha256 of the file of queries."""
    return hashlib.sha256(read_bytes(uri)).hexdigest()


def _judged(text: str, fits: dict[int, float]) -> JudgedQuery:
    items = sorted(fits)
    return JudgedQuery(text, np.array(items), np.array([fits[item] for item in items]))


def _rows(uri: str, items: pa.Table) -> tuple[list[tuple[str, int, float]], Counter[str]]:
    """(query, item index, relevance) of each row that can be used, and why others cannot."""
    table = _read(uri)
    known = ItemVocabulary(items[schema.ITEM_ID])
    removed = items[schema.REMOVED].to_pylist()
    indexes = known.indexes_of([str(i) for i in table[schema.ITEM_ID].to_pylist()]).tolist()
    texts = table[QUERY].to_pylist()
    has_relevance = RELEVANCE in table.column_names
    fit = table[RELEVANCE].to_pylist() if has_relevance else [1.0] * len(table)
    counted, kept = Counter[str](), []
    for text, item, relevance in zip(texts, indexes, fit, strict=True):
        reason = _fault(text, item, relevance, removed)
        counted[reason] += 1
        if reason == USED:
            kept.append((text, item, float(relevance)))
    return kept, counted


def _fault(text: Any, item: int, relevance: Any, removed: list[bool]) -> str:
    """Why a row is left out, or `USED`."""
    if item == UNKNOWN:
        return "unknown_item"
    if removed[item]:
        return "removed_item"
    if relevance is None or not math.isfinite(relevance) or relevance <= 0:
        return "no_relevance"
    if not isinstance(text, str) or not text.strip():
        return "empty_query"
    return "long_query" if len(text) > MAX_QUERY_CHARS else USED


def _read(uri: str) -> pa.Table:
    content = read_bytes(uri)
    with parquet_errors(uri):
        table = pq.read_table(pa.BufferReader(content))
    lacking = sorted({QUERY, schema.ITEM_ID} - set(table.column_names))
    if lacking:
        raise ValueError(f"{uri} has no column {', '.join(lacking)}: it needs query and item_id")
    if RELEVANCE in table.column_names and not _is_number(table.schema.field(RELEVANCE).type):
        raise ValueError(f"{uri}: relevance must be a number above 0")
    return table


def _is_number(of: pa.DataType) -> bool:
    return pa.types.is_integer(of) or pa.types.is_floating(of)


def _key(text: str) -> str:
    return " ".join(sorted(set(split_words(text)))) or text.strip()


def _split_of(key: str) -> str:
    """By a hash, so that a query stays in its split when others come."""
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
    reached = 0.0
    for name, share in SPLIT_SHARES:
        reached += share
        if number < reached:
            return name
    return SPLIT_SHARES[-1][0]

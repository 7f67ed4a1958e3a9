"""Which columns an index keeps."""

from __future__ import annotations

import datetime
import decimal

import pyarrow as pa

from recsys.index.item_columns import attribute_columns, kept_columns, kind_of

DATASET = pa.table(
    {
        "item_id": ["a"],
        "title": ["Saw"],
        "description": ["long"],
        "category": pa.array(["Tools"]).dictionary_encode(),
        "size": [3],
        "weight": [decimal.Decimal("1.5")],
        "is_new": [True],
        "tags": [["x", "y"]],
        "maker": [{"name": "z"}],
        "since": [datetime.date(2024, 1, 1)],
        "image": [b"png"],
        "empty": pa.nulls(1),
        "item_index": [0],
        "removed": [False],
        "text": ["Saw Tools"],
        "token_ids": [[1, 2]],
        "train_count": [7],
    }
)


def test_what_can_be_shown_or_filtered_is_kept_and_long_texts_are_not():
    attributes = ["category", "size", "weight", "is_new"]
    assert attribute_columns(DATASET) == attributes
    kept = kept_columns(DATASET)
    assert kept == ["item_id", "title", *attributes, "removed", "train_count"]
    assert attribute_columns(DATASET.select(kept)) == attributes


def test_every_kind_of_text_and_number_counts():
    for text in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        assert kind_of(text) == "text"
    for number in (pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(9, 2)):
        assert kind_of(number) == "number"
    assert kind_of(pa.timestamp("s")) is None

"""Items as serving sees them: ids, titles, attributes and how popular they are. No vectors.

Shapes: N items.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys import schema
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary
from recsys.index.item_columns import attribute_columns, kind_of
from recsys.index.item_index import Ranking, popularity_order

ATTRIBUTES = ("category", "brand")
"""What two items may have in common."""
NO_VALUE = -1
"""The code of an attribute that an item does not have."""


class Catalogue:
    """The item table of an index artifact."""

    def __init__(self, items: pa.Table) -> None:
        self.items = items
        self.vocabulary = ItemVocabulary(items[schema.ITEM_ID])
        self.titles: list[str | None] = items["title"].to_pylist()
        self.train_counts = torch.as_tensor(items[schema.TRAIN_COUNT].to_numpy().copy())
        self.removed = torch.tensor(items[schema.REMOVED].to_pylist(), dtype=torch.bool)
        self.columns = {name: _stored(items[name]) for name in attribute_columns(items)}
        """(N,) text as dictionaries, numbers and booleans; null where an item has no value."""
        encoded = {name: _encoded(items, name) for name in ATTRIBUTES}
        self._values = {name: column.dictionary for name, column in encoded.items()}
        self._codes = {n: pc.fill_null(c.indices, NO_VALUE).to_numpy() for n, c in encoded.items()}
        self.prices = _numbers(items, "price")
        """(N,) float64, not a number where unknown."""

    @property
    def ranking(self) -> Ranking:
        """Of items with one score the one with more training events first, removed ones never."""
        return Ranking(len(self), popularity_order(self.train_counts), self.removed)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def find(self, item_ids: list[str]) -> tuple[list[int], list[int], list[str]]:
        """Indexes of the known ids, their positions in `item_ids`, and the unknown ids."""
        indexes = self.vocabulary.indexes_of(item_ids).tolist() if item_ids else []
        positions = [p for p, index in enumerate(indexes) if index != UNKNOWN]
        unknown = [i for i, index in zip(item_ids, indexes, strict=True) if index == UNKNOWN]
        return [indexes[p] for p in positions], positions, unknown

    def present(self, item_ids: Sequence[str]) -> tuple[list[int], list[str]]:
        """Indexes of the ids, each once, and the ids that are unknown or removed."""
        ids = list(dict.fromkeys(item_ids))
        known, positions, unknown = self.find(ids)
        removed = self.removed[known].tolist()
        there = [index for index, is_gone in zip(known, removed, strict=True) if not is_gone]
        gone = [ids[p] for p, is_gone in zip(positions, removed, strict=True) if is_gone]
        return there, unknown + gone

    def recommendation(
        self, item_index: int, score: float, probability: float | None = None
    ) -> schema.Recommendation:
        """One answered item with its id and title."""
        item_id = str(self.vocabulary.item_ids[item_index])
        return schema.Recommendation(item_id, score, self.titles[item_index], probability)

    def name(self, item_index: int) -> str:
        """The title of an item, or its id where it has none."""
        return self.titles[item_index] or str(self.vocabulary.item_ids[item_index])

    def values_of(self, item_index: int) -> dict[str, str | float | bool]:
        """What is known of an item, by column."""
        found = {name: column[item_index].as_py() for name, column in self.columns.items()}
        return {name: value for name, value in found.items() if value is not None}

    def attribute(self, name: str, item_indexes: Sequence[int]) -> list[str | None]:
        """The values of one of `ATTRIBUTES`; None where an item has none."""
        codes = self._codes[name][list(item_indexes)].tolist()
        return [None if c == NO_VALUE else self._values[name][c].as_py() for c in codes]

    def codes(self, name: str) -> np.ndarray:
        """(N,) equal numbers for equal values of an attribute, `NO_VALUE` where there is none."""
        return self._codes[name]

    def with_items(self, item_ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Catalogue:
        """A catalogue with these items, new ones behind the others; known ids get the new row.

        Raises:
            ValueError: a row has a column that the catalogue has not, or a value of another type.
        """
        made = self._table_of(item_ids, rows)
        pool = pa.concat_tables([self.items, made])
        known = self.vocabulary.indexes_of(list(item_ids))
        new = known == UNKNOWN
        places = np.append(np.arange(len(self)), np.flatnonzero(new) + len(self))
        places[known[~new]] = np.flatnonzero(~new) + len(self)
        return Catalogue(pool.take(pa.array(places)).combine_chunks())

    def without_items(self, item_indexes: Sequence[int]) -> Catalogue:
        """A catalogue in which these items are removed; they keep their indexes."""
        removed = self.removed.clone()
        removed[list(item_indexes)] = True
        place = self.items.column_names.index(schema.REMOVED)
        column = pa.array(removed.numpy())
        return Catalogue(self.items.set_column(place, schema.REMOVED, column))

    def _table_of(self, item_ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Rows for these ids in this catalogue's columns; a known item keeps its events."""
        given = (schema.ITEM_ID, schema.TRAIN_COUNT, schema.REMOVED)
        allowed = [name for name in self.items.column_names if name not in given]
        if wrong := sorted({name for row in rows for name in row} - set(allowed)):
            raise ValueError(f"items have no column {', '.join(wrong)}: name {', '.join(allowed)}")
        indexes = self.vocabulary.indexes_of(list(item_ids)).tolist()
        counts = [0 if i == UNKNOWN else int(self.train_counts[i]) for i in indexes]
        whole = [
            {**row, schema.ITEM_ID: item_id, schema.TRAIN_COUNT: count, schema.REMOVED: False}
            for item_id, row, count in zip(item_ids, rows, counts, strict=True)
        ]
        try:
            return pa.Table.from_pylist(whole, self.items.schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(
                f"an item's value is of another type than its column: {error}"
            ) from error


def _stored(column: pa.ChunkedArray) -> pa.Array:
    """Text as a dictionary without ""; numbers without those that are not finite."""
    whole = column.combine_chunks()
    kind = kind_of(whole.type)
    if kind == "text":
        return _dictionary(whole)
    if kind == "number":
        whole = whole.cast(pa.float64()) if pa.types.is_decimal(whole.type) else whole
        return pc.if_else(pc.is_finite(whole), whole, pa.scalar(None, whole.type))
    return whole


def _dictionary(texts: pa.Array) -> pa.DictionaryArray:
    """Each value once, and 4 bytes an item. Empty texts are no values."""
    texts = texts.cast(pa.large_string())
    known = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
    return known.dictionary_encode()


def _numbers(items: pa.Table, name: str) -> np.ndarray:
    """(N,) float64, not a number where unknown."""
    if name not in items.column_names:
        return np.full(len(items), np.nan)
    return items[name].cast(pa.float64()).to_numpy()


def _encoded(items: pa.Table, name: str) -> pa.DictionaryArray:
    """A column of the items as a dictionary, all null where there is no such column."""
    if name not in items.column_names:
        return pa.nulls(len(items), pa.dictionary(pa.int32(), pa.large_string()))
    return _dictionary(items[name].combine_chunks())

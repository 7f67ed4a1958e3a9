"""Items as serving sees them: ids, titles, attributes and how popular they are. No vectors.

Shapes: N items.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys import schema
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary

ATTRIBUTES = ("category", "brand")
"""What two items may have in common."""
NO_VALUE = -1
"""The code of an attribute that an item does not have."""


class Catalogue:
    """The item table of an index artifact."""

    def __init__(self, items: pa.Table) -> None:
        self.vocabulary = ItemVocabulary(items[schema.ITEM_ID])
        self.titles: list[str | None] = items["title"].to_pylist()
        self.train_counts = torch.as_tensor(items[schema.TRAIN_COUNT].to_numpy().copy())
        self.removed = torch.tensor(items[schema.REMOVED].to_pylist(), dtype=torch.bool)
        encoded = {name: _encoded(items, name) for name in ATTRIBUTES}
        self._values = {name: column.dictionary for name, column in encoded.items()}
        self._codes = {n: pc.fill_null(c.indices, NO_VALUE).to_numpy() for n, c in encoded.items()}
        self.prices = _numbers(items, "price")
        """(N,) float64, not a number where unknown."""

    def __len__(self) -> int:
        return len(self.vocabulary)

    def find(self, item_ids: list[str]) -> tuple[list[int], list[int], list[str]]:
        """Indexes of the known ids, their positions in `item_ids`, and the unknown ids."""
        indexes = self.vocabulary.indexes_of(item_ids).tolist() if item_ids else []
        positions = [p for p, index in enumerate(indexes) if index != UNKNOWN]
        unknown = [i for i, index in zip(item_ids, indexes, strict=True) if index == UNKNOWN]
        return [indexes[p] for p in positions], positions, unknown

    def recommendation(self, item_index: int, score: float) -> schema.Recommendation:
        """One answered item with its id and title."""
        item_id = str(self.vocabulary.item_ids[item_index])
        return schema.Recommendation(item_id, score, self.titles[item_index])

    def name(self, item_index: int) -> str:
        """The title of an item, or its id where it has none."""
        return self.titles[item_index] or str(self.vocabulary.item_ids[item_index])

    def attribute(self, name: str, item_indexes: Sequence[int]) -> list[str | None]:
        """The values of one of `ATTRIBUTES`; None where an item has none."""
        codes = self._codes[name][list(item_indexes)].tolist()
        return [None if c == NO_VALUE else self._values[name][c].as_py() for c in codes]

    def codes(self, name: str) -> np.ndarray:
        """(N,) equal numbers for equal values of an attribute, `NO_VALUE` where there is none."""
        return self._codes[name]


def _numbers(items: pa.Table, name: str) -> np.ndarray:
    """(N,) float64, not a number where unknown."""
    if name not in items.column_names:
        return np.full(len(items), np.nan)
    return items[name].cast(pa.float64()).to_numpy()


def _encoded(items: pa.Table, name: str) -> pa.DictionaryArray:
    """A column of the items: each value once, and 4 bytes an item. Empty texts are no values."""
    if name not in items.column_names:
        return pa.nulls(len(items), pa.dictionary(pa.int32(), pa.large_string()))
    texts = items[name].cast(pa.large_string())
    known = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
    return known.combine_chunks().dictionary_encode()

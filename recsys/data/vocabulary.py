"""item_id <-> item_index: the row an item has in every matrix of one dataset."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

UNKNOWN = -1
"""The index of an id that the vocabulary does not have."""


class ItemVocabulary:
    """Item ids in index order. pandas' hash table is built once and answers whole arrays."""

    def __init__(self, item_ids: pa.ChunkedArray | pa.Array | list[str]) -> None:
        ids = item_ids if isinstance(item_ids, list) else item_ids.to_pylist()
        self.item_ids = np.array(ids, dtype=object)
        self._index = pd.Index(self.item_ids)
        assert self._index.is_unique

    def __len__(self) -> int:
        return len(self.item_ids)

    def indexes_of(self, item_ids: list[str] | np.ndarray) -> np.ndarray:
        """int32 item indexes; `UNKNOWN` where an id is not in the catalogue."""
        return self._index.get_indexer(np.asarray(item_ids, dtype=object)).astype(np.int32)

"""Items as serving sees them: ids, titles and how popular they are. No vectors."""

from __future__ import annotations

import pyarrow as pa
import torch

from recsys import schema
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary


class Catalogue:
    """The item table of an index artifact."""

    def __init__(self, items: pa.Table) -> None:
        self.vocabulary = ItemVocabulary(items[schema.ITEM_ID])
        self.titles: list[str | None] = items["title"].to_pylist()
        self.train_counts = torch.as_tensor(items[schema.TRAIN_COUNT].to_numpy().copy())
        self.removed = torch.tensor(items[schema.REMOVED].to_pylist(), dtype=torch.bool)

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

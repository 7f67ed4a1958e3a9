"""The nouns every room shares: column names, histories, batches, recommendations.

`user_id` and `item_id` are the company's strings; `item_index` is the row of an item in every
matrix of one dataset (0 .. N-1). Nothing here touches files, Ray or a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
EVENT = "event"
VALUE = "value"
ORDER = "order"
SPLIT = "split"
ITEM_INDEX = "item_index"
ITEM_INDEXES = "item_indexes"
TIMESTAMPS = "timestamps"
EVENTS = "events"
TARGETS = "targets"
TEXT = "text"
TOKEN_IDS = "token_ids"
TRAIN_COUNT = "train_count"
RULE = "rule"
RULE_VALUE = "rule_value"
SOURCE_FILE = "source_file"
REMOVED = "removed"

SECONDS_A_DAY = 86_400
SPLITS = ("train", "valid", "test")
ITEM_TEXT_COLUMNS = ("title", "description", "category", "brand")
UNKNOWN_TIME = -1
"""Stands for a timestamp that no source has."""


@dataclass(frozen=True, slots=True)
class History:
    """One user's events, oldest first.

    `timestamps` are Unix seconds, `UNKNOWN_TIME` where unknown; `events` are positions in the
    dataset's list of event names. The three arrays have one length, which may be 0.
    """

    item_indexes: np.ndarray
    timestamps: np.ndarray
    events: np.ndarray

    @classmethod
    def of_items(cls, item_indexes: list[int] | np.ndarray) -> History:
        """A history of which only the items and their order are known."""
        items = np.asarray(item_indexes, dtype=np.int64)
        return cls(items, np.full(len(items), UNKNOWN_TIME), np.zeros(len(items), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.item_indexes)

    def last(self, count: int) -> History:
        """The newest `count` events."""
        return History(self.item_indexes[-count:], self.timestamps[-count:], self.events[-count:])


@dataclass(frozen=True, slots=True)
class Batch:
    """Histories padded on the right to one length.

    B users, H positions: `item_indexes`, `timestamps`, `events` and `targets` are (B, H) int64
    and `lengths` is (B,). `targets[b, t]` is the item to predict after position t, or
    `NO_TARGET`. A causal encoder never looks to the right, so padding changes no real position.
    `weights` (B, H) float32 are the targets' weights in the loss; None where each weighs 1.
    """

    item_indexes: torch.Tensor
    timestamps: torch.Tensor
    events: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None = None


NO_TARGET = -100
"""What `Batch.targets` holds where nothing is to be predicted."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One answered item: its id, cosine score and title (None where the catalogue has none)."""

    item_id: str
    score: float
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Recommendations for one request.

    `source` is "model", or "popular" where no known item was in the history. `unknown_items`
    are the ids of the request that the catalogue does not have.
    """

    items: list[Recommendation]
    source: str
    unknown_items: list[str] = field(default_factory=list[str])

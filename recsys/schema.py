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
VALUES = "values"
TARGET_VALUES = "target_values"
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
    dataset's list of event names; `values` are float32 ratings or amounts, NaN where unknown, or
    None where nobody asked for them. The arrays have one length, which may be 0.
    """

    item_indexes: np.ndarray
    timestamps: np.ndarray
    events: np.ndarray
    values: np.ndarray | None = None

    @classmethod
    def of_items(cls, item_indexes: list[int] | np.ndarray) -> History:
        """A history of which only the items and their order are known."""
        items = np.asarray(item_indexes, dtype=np.int64)
        return cls(items, np.full(len(items), UNKNOWN_TIME), np.zeros(len(items), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.item_indexes)

    def last(self, count: int) -> History:
        """The newest `count` events."""
        return self.take(slice(-count, None))

    def then(self, newer: History) -> History:
        """These events and, after them, others."""
        values = None
        if self.values is not None and newer.values is not None:
            values = np.concatenate([self.values, newer.values])
        return History(
            np.concatenate([self.item_indexes, newer.item_indexes]),
            np.concatenate([self.timestamps, newer.timestamps]),
            np.concatenate([self.events, newer.events]),
            values,
        )

    def take(self, places: np.ndarray | slice) -> History:
        """The events at these places."""
        values = None if self.values is None else self.values[places]
        return History(
            self.item_indexes[places], self.timestamps[places], self.events[places], values
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Histories padded on the right to one length.

    B users, H positions: `item_indexes`, `timestamps`, `events` and `targets` are (B, H) int64
    and `lengths` is (B,). `targets[b, t]` is the item to predict after position t, or
    `NO_TARGET`. A causal encoder never looks to the right, so padding changes no real position.
    `weights` (B, H) float32 are the targets' weights in the loss; None where each weighs 1.
    `values` and `target_values` (B, H) float32 are the values of the events and of the targets, NaN
    where unknown; None where the histories have none.
    """

    item_indexes: torch.Tensor
    timestamps: torch.Tensor
    events: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None = None
    values: torch.Tensor | None = None
    target_values: torch.Tensor | None = None


NO_TARGET = -100
"""What `Batch.targets` holds where nothing is to be predicted."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One answered item: id, score and title (None where the catalogue has none).

    `probability` is that the user takes it; None where the model has no head for that. Of the order
    for a text by a final ranker it is that the item fits the text.
    """

    item_id: str
    score: float
    title: str | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Recommendations for one request.

    `source` is "model", or "popular" where no known item was in the history. `unknown_items`
    are the ids of the request that the catalogue does not have. `segment` tells whose popular
    items these are, such as "country=DE"; None where they are everyone's or the model's.
    """

    items: list[Recommendation]
    source: str
    unknown_items: list[str] = field(default_factory=list[str])
    segment: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one item was answered, told from data alone.

    `events` are the events of the history that raised the item's score most, the first most: item
    id, title, and by how much the score falls without the event. `shared` are the attributes, name
    and value, that the item has in common with any of them. `sentence` says so in words.
    """

    item: Recommendation
    events: list[tuple[str, str | None, float]]
    shared: list[tuple[str, str]]
    sentence: str

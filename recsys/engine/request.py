"""What is asked: requests in the company's ids, and the same in item indexes.

Shapes: N items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from recsys.engine.catalogue import Catalogue
from recsys.engine.filters import Filter, ItemFilters
from recsys.index.segment_popularity import Segment, Segments
from recsys.schema import UNKNOWN_TIME, History


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a request's history."""

    item_id: str
    timestamp: int | None = None
    event: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One request: a history (oldest first), how many items, and ids never to return.

    All `filters` hold for every answered item. `diversity`, from 0, by score alone, to 1, and
    `max_per_category` are told in `recsys.engine.diversity`. The `context`, such as
    {"country": "DE"}, says whose popular items come where no item of the history is known.
    """

    history: Sequence[Event]
    top_k: int = 10
    exclude: Sequence[str] = field(default_factory=tuple)
    filters: Sequence[Filter] = field(default_factory=tuple)
    diversity: float = 0.0
    max_per_category: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_diverse(self) -> bool:
        """Whether items are chosen by more than their scores."""
        return self.diversity > 0 or self.max_per_category is not None


@dataclass(frozen=True, slots=True)
class Asked:
    """A history and what may not be answered, in item indexes.

    `allowed` (N,) is None where all items are. `segment` is whose popular items are meant, None for
    everyone's. `unknown` are the ids of the history that the catalogue does not have.
    """

    history: History
    left_out: list[int]
    allowed: torch.Tensor | None = None
    segment: Segment | None = None
    unknown: list[str] = field(default_factory=list)


class RequestReader:
    """Knows ids, names of events, columns of the items and segments of the users."""

    def __init__(
        self,
        catalogue: Catalogue,
        event_names: Sequence[str],
        filter_seen: bool,
        segments: Segments | None,
    ) -> None:
        self._catalogue = catalogue
        self._events = {name: number for number, name in enumerate(event_names)}
        self._filter_seen = filter_seen
        self._segments = segments or Segments.none()
        self.filters = ItemFilters(catalogue.columns, len(catalogue))

    def check(self, query: Query) -> None:
        """Hold that a query can be answered.

        Raises:
            ValueError: a filter does not fit the items, or a number is out of range.
        """
        self.filters.check(query.filters)
        if not 0 <= query.diversity <= 1:
            raise ValueError(f"diversity is {query.diversity}: send 0 to 1")
        if query.max_per_category is not None and query.max_per_category < 1:
            raise ValueError(f"max_per_category is {query.max_per_category}: send 1 or more")

    def read(self, query: Query) -> Asked:
        """The query in item indexes.

        Raises:
            ValueError: see `check`.
        """
        self.check(query)
        history, unknown = self._read_history(query.history)
        excluded, _, _ = self._catalogue.find(list(query.exclude))
        return Asked(
            history,
            self.left_out(history, excluded),
            self.filters.allowed(query.filters),
            self._segments.find(query.context),
            unknown,
        )

    def left_out(self, history: History, excluded: Sequence[int]) -> list[int]:
        """The items that may not be answered, each once."""
        seen = history.item_indexes.tolist() if self._filter_seen else []
        return sorted({*excluded, *seen})

    def _read_history(self, history: Sequence[Event]) -> tuple[History, list[str]]:
        indexes, positions, unknown = self._catalogue.find([e.item_id for e in history])
        events = [history[position] for position in positions]
        times = [UNKNOWN_TIME if e.timestamp is None else e.timestamp for e in events]
        kinds = [self._events.get(e.event or "", 0) for e in events]
        return History(np.array(indexes, int), np.array(times, int), np.array(kinds, int)), unknown

"""How it answers: history -> top-k items. Knows neither Ray nor HTTP.

Evaluation and serving both call this, so that what is measured is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch

from recsys.artifact import Artifact
from recsys.engine.catalogue import Catalogue
from recsys.engine.explain import Explainer
from recsys.engine.popularity import PopularityRanking
from recsys.engine.scoring import Scorer
from recsys.index.item_index import VECTORS, ItemIndex, load_index
from recsys.index.transitions import TRANSITIONS, Transitions, load_transitions
from recsys.models.build import load_model
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import UNKNOWN_TIME, Answer, Explanation, History

MODEL, POPULAR = "model", "popular"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a request's history."""

    item_id: str
    timestamp: int | None = None
    event: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One request: a history (oldest first), how many items, and ids never to return."""

    history: Sequence[Event]
    top_k: int = 10
    exclude: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Item indexes with scores, best first, and where they came from."""

    item_indexes: list[int]
    scores: list[float]
    source: str


class Recommender:
    """Encode the history, search the index, drop what is excluded."""

    def __init__(
        self,
        model: RecommenderModel,
        index: ItemIndex,
        catalogue: Catalogue,
        max_history: int,
        event_names: Sequence[str],
        filter_seen: bool,
        transitions: Transitions | None = None,
    ) -> None:
        self._index = index
        self._catalogue = catalogue
        self._popularity = PopularityRanking(catalogue.train_counts, catalogue.removed)
        self._events = {name: number for number, name in enumerate(event_names)}
        self._filter_seen = filter_seen
        self.scorer = Scorer(model, index, catalogue, max_history, transitions)
        self.explainer = Explainer(self.scorer, catalogue, max_history)

    @classmethod
    def load(cls, checkpoint: Artifact, index: Artifact, filter_seen: bool) -> Self:
        """The recommender of a checkpoint and an index that was made from it.

        Raises:
            ValueError: the index was made from another checkpoint.
        """
        _check_made_from(index, checkpoint)
        model, shape = load_model(checkpoint, with_text=False)
        return cls(
            model,
            load_index(index.read_bytes(VECTORS)),
            Catalogue(index.read_table("items.parquet")),
            shape.max_history,
            checkpoint.manifest.facts["prepare"]["events"],
            filter_seen,
            _read_transitions(index),
        )

    @property
    def num_items(self) -> int:
        """Items that can be answered."""
        return len(self._catalogue)

    def recommend(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer requests together, in one forward pass."""
        parsed = [self._parse(query) for query in queries]
        histories = [history for history, _ in parsed]
        excluded = [self._catalogue.find(list(q.exclude))[0] for q in queries]
        ranked = self.rank(histories, [query.top_k for query in queries], excluded)
        return [self._answer(r, unknown) for r, (_, unknown) in zip(ranked, parsed, strict=True)]

    def explain(self, query: Query, item_ids: Sequence[str]) -> list[Explanation]:
        """Why each item suits the query's history, in the order of the ids.

        Costs one pass of as many histories as there are events, and one more.

        Raises:
            ValueError: an id is not in the catalogue.
        """
        items, _, unknown = self._catalogue.find(list(item_ids))
        if unknown:
            raise ValueError(f"not in the catalogue: {', '.join(unknown)}; ask without them")
        return self.explainer.explain(self._parse(query)[0], items)

    def similar_items(self, item_id: str, top_k: int) -> Answer | None:
        """The items nearest to one item, without itself; None where the id is unknown."""
        known, _, _ = self._catalogue.find([item_id])
        if not known:
            return None
        query_1D = self._index.vectors_of(torch.tensor(known))
        scores, items = self._index.search(query_1D, top_k, [known])
        return self._answer(_trimmed(items[0], scores[0], top_k), [])

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The best items for each history; popular ones where the history is empty."""
        left_out = [self._left_out(h, e) for h, e in zip(histories, excluded, strict=True)]
        answered = [row for row, history in enumerate(histories) if len(history)]
        found = self._search(
            [histories[row] for row in answered],
            [top_k[row] for row in answered],
            [left_out[row] for row in answered],
        )
        by_row = dict(zip(answered, found, strict=True))
        return [
            by_row[row] if row in by_row else self._popular(k, left_out[row])
            for row, k in enumerate(top_k)
        ]

    def _search(
        self, histories: list[History], top_k: list[int], left_out: list[list[int]]
    ) -> list[Ranked]:
        if not histories:
            return []
        scores, items = self.scorer.search(histories, max(top_k), left_out)
        return [_trimmed(i, s, k) for i, s, k in zip(items, scores, top_k, strict=True)]

    def _left_out(self, history: History, excluded: Sequence[int]) -> list[int]:
        seen = history.item_indexes.tolist() if self._filter_seen else []
        return sorted({*excluded, *seen})

    def _popular(self, top_k: int, left_out: list[int]) -> Ranked:
        items, shares = self._popularity.top(top_k, left_out)
        return Ranked(items, shares, POPULAR)

    def _parse(self, query: Query) -> tuple[History, list[str]]:
        indexes, positions, unknown = self._catalogue.find([e.item_id for e in query.history])
        events = [query.history[position] for position in positions]
        times = [UNKNOWN_TIME if e.timestamp is None else e.timestamp for e in events]
        kinds = [self._events.get(e.event or "", 0) for e in events]
        return History(np.array(indexes, int), np.array(times, int), np.array(kinds, int)), unknown

    def _answer(self, ranked: Ranked, unknown: list[str]) -> Answer:
        pairs = zip(ranked.item_indexes, ranked.scores, strict=True)
        items = [self._catalogue.recommendation(item, score) for item, score in pairs]
        return Answer(items, ranked.source, unknown)


def _check_made_from(index: Artifact, checkpoint: Artifact) -> None:
    made_from = index.manifest.parents.get("checkpoint")
    if made_from != checkpoint.digest:
        raise ValueError(
            f"{index.uri} was made from checkpoint {str(made_from)[:12]}, not from "
            f"{checkpoint.uri} ({checkpoint.digest[:12]}): build the index again"
        )


def _read_transitions(index: Artifact) -> Transitions | None:
    found = index.names(TRANSITIONS)
    return load_transitions(index.read_bytes(TRANSITIONS)) if found else None


def _trimmed(items_K: torch.Tensor, scores_K: torch.Tensor, top_k: int) -> Ranked:
    """The first `top_k` results that were not excluded."""
    left_K = scores_K > -torch.inf
    items, scores = items_K[left_K][:top_k], scores_K[left_K][:top_k]
    return Ranked(items.tolist(), scores.tolist(), MODEL)

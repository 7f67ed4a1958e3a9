"""How it answers: history -> top-k items. Knows neither Ray nor HTTP.

Evaluation and serving both call this, so that what is measured is what is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch

from recsys.artifact import Artifact
from recsys.engine.catalogue import Catalogue
from recsys.engine.explain import Explainer
from recsys.engine.filters import Filter
from recsys.engine.probability import ProbabilityOf, trained_rows
from recsys.engine.ranking import MODEL, POPULAR, ItemRanking, Ranked, trimmed
from recsys.engine.request import Asked, Event, Query, RequestReader
from recsys.engine.scoring import Scorer
from recsys.engine.stages import stage
from recsys.index.approximate import read_index
from recsys.index.changed_index import change
from recsys.index.item_index import ItemIndex, popularity_order
from recsys.index.segment_popularity import SEGMENTS, Segments
from recsys.index.transitions import TRANSITIONS, Transitions, load_transitions
from recsys.models.build import load_model
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import Answer, Explanation, History

__all__ = ["MODEL", "POPULAR", "Event", "Query", "Ranked", "Recommender"]


class Recommender:
    """Encode the history, search the index, drop what is excluded.

    Nothing of it changes, so any number of threads may ask it at once. `trained` (N,) are the rows
    of the items in training; None where they are the index's own. `states_mb` of memory keep what
    was read of histories (`UserStates`).
    """

    def __init__(
        self,
        model: RecommenderModel,
        index: ItemIndex,
        catalogue: Catalogue,
        max_history: int,
        event_names: Sequence[str],
        filter_seen: bool,
        transitions: Transitions | None = None,
        segments: Segments | None = None,
        trained: np.ndarray | None = None,
        states_mb: int = 0,
    ) -> None:
        self._again = partial(
            Recommender,
            model,
            max_history=max_history,
            event_names=event_names,
            filter_seen=filter_seen,
            segments=segments,
            trained=trained,
            states_mb=states_mb,
        )
        self.model = model
        self._index = index
        self.catalogue = catalogue
        self._transitions = transitions
        self._reader = RequestReader(catalogue, event_names, filter_seen, segments)
        self.probability = ProbabilityOf(model, index, max_history, trained)
        self.scorer = Scorer(model, index, catalogue, max_history, transitions, states_mb)
        self._ranking = ItemRanking(self.scorer, index, catalogue)
        self.explainer = Explainer(self.scorer, catalogue, max_history)

    @classmethod
    def load(
        cls, checkpoint: Artifact, index: Artifact, filter_seen: bool, states_mb: int = 0
    ) -> Self:
        """The recommender of a checkpoint and an index that was made from it.

        Raises:
            ValueError: the index was made from another checkpoint.
        """
        _check_made_from(index, checkpoint)
        model, shape = load_model(checkpoint, with_text=False)
        catalogue = Catalogue(index.read_table("items.parquet"))
        return cls(
            model,
            read_index(index),
            catalogue,
            shape.max_history,
            checkpoint.manifest.facts["prepare"]["events"],
            filter_seen,
            _read_transitions(index),
            _read_segments(index),
            trained_rows(model, checkpoint, catalogue),
            states_mb,
        )

    @property
    def num_items(self) -> int:
        """Items that can be answered."""
        return len(self.catalogue)

    def check(self, query: Query) -> None:
        """Hold that a query can be answered.

        Raises:
            ValueError: a filter does not fit the items, or a number is out of range.
        """
        self._reader.check(query)

    def recommend(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer requests together, in one forward pass, and another where there are probabilities.

        Raises:
            ValueError: see `check`.
        """
        with stage("filter"):
            asked = [self._reader.read(query) for query in queries]
        return self._answers(asked, self._ranking.best(queries, asked))

    def rank_items(
        self, queries: Sequence[Query], item_ids: Sequence[Sequence[str]]
    ) -> list[Answer]:
        """The order of given items for each query: all of them, each once, best first.

        Scores are those of `recommend`; of a query only history and context count. Ids that are not
        in the catalogue, or were removed from it, are among the unknown items.
        """
        asked: list[Asked] = []
        ranked: list[Ranked] = []
        for query, ids in zip(queries, item_ids, strict=True):
            items, unknown = self.catalogue.present(ids)
            read = self._reader.read(query)
            asked.append(replace(read, unknown=read.unknown + unknown))
            ranked.append(self._ranking.sort(read, items))
        return self._answers(asked, ranked)

    def explain(self, query: Query, item_ids: Sequence[str]) -> list[Explanation]:
        """Why each item suits the query's history, in the order of the ids.

        Costs one pass of as many histories as there are events, and one more.

        Raises:
            ValueError: an id is not in the catalogue.
        """
        items, _, unknown = self.catalogue.find(list(item_ids))
        if unknown:
            raise ValueError(f"not in the catalogue: {', '.join(unknown)}; ask without them")
        return self.explainer.explain(self._reader.read(query).history, items)

    def similar_items(
        self, item_id: str, top_k: int, filters: Sequence[Filter] = ()
    ) -> Answer | None:
        """The items nearest to one item, without itself; None where the id is unknown.

        Raises:
            ValueError: a filter does not fit the items.
        """
        allowed = self._reader.filters.allowed(filters)
        known, _, _ = self.catalogue.find([item_id])
        if not known:
            return None
        query_1D = self._index.vectors_of(torch.tensor(known))
        scores, items = self._index.search(query_1D, top_k, [known], [allowed])
        found = trimmed(items[0], scores[0], top_k)
        return self._answer(found, [], [None] * len(found.scores))

    def item(self, item_id: str) -> dict[str, Any] | None:
        """`item_id`, `title` and `attributes` of an item, removed or not; None where unknown."""
        known, _, _ = self.catalogue.find([item_id])
        if not known:
            return None
        title, values = self.catalogue.titles[known[0]], self.catalogue.values_of(known[0])
        return {"item_id": item_id, "title": title, "attributes": values}

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The best items for each history; popular ones where the history is empty."""
        pairs = zip(histories, excluded, strict=True)
        asked = [Asked(h, self._reader.left_out(h, items)) for h, items in pairs]
        return self._ranking.top(asked, top_k)

    def with_items(
        self, item_ids: Sequence[str], vectors: torch.Tensor, rows: Sequence[Mapping[str, Any]]
    ) -> Recommender:
        """A recommender that has these items too, or in place of those with the same ids.

        `vectors` (M, D) are the item encoder's; rows hold a title and any columns of the items. The
        index of the others is shared, and requests to this recommender go on.

        Raises:
            ValueError: an id comes twice, or a row or the vectors do not fit.
        """
        size = self._index.vectors_of(torch.empty(0, dtype=torch.int64)).shape[1]
        if vectors.shape != (len(item_ids), size) or len(set(item_ids)) != len(item_ids):
            raise ValueError(
                f"{len(item_ids)} ids with vectors {tuple(vectors.shape)}: send each id once, and "
                f"for each {size} numbers"
            )
        return self._changed(self.catalogue.with_items(item_ids, rows), item_ids, vectors)

    def without_items(self, item_ids: Sequence[str]) -> Recommender:
        """A recommender that never answers these items; histories may still hold them."""
        known, _, _ = self.catalogue.find(list(item_ids))
        no_vectors = self._index.vectors_of(torch.empty(0, dtype=torch.int64))
        return self._changed(self.catalogue.without_items(known), [], no_vectors)

    def _changed(
        self, catalogue: Catalogue, item_ids: Sequence[str], vectors: torch.Tensor
    ) -> Recommender:
        index = change(
            self._index,
            len(self.catalogue),
            torch.tensor(catalogue.find(list(item_ids))[0], dtype=torch.int64),
            vectors.float(),
            popularity_order(catalogue.train_counts),
            catalogue.removed,
        )
        memory = self._transitions
        if memory is not None:
            num_new = len(catalogue) - len(self.catalogue)
            memory = replace(memory, starts=np.pad(memory.starts, (0, num_new), mode="edge"))
        return self._again(index=index, catalogue=catalogue, transitions=memory)

    def _answers(self, asked: Sequence[Asked], ranked: Sequence[Ranked]) -> list[Answer]:
        chances = self.probability.of(
            [one.history for one in asked], [found.item_indexes for found in ranked]
        )
        rows = zip(ranked, [one.unknown for one in asked], chances, strict=True)
        return [self._answer(*row) for row in rows]

    def _answer(
        self, ranked: Ranked, unknown: list[str], chances: Sequence[float | None]
    ) -> Answer:
        rows = zip(ranked.item_indexes, ranked.scores, chances, strict=True)
        items = [self.catalogue.recommendation(*row) for row in rows]
        return Answer(items, ranked.source, unknown, ranked.segment)


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


def _read_segments(index: Artifact) -> Segments | None:
    return Segments(index.read_table(SEGMENTS)) if index.names(SEGMENTS) else None

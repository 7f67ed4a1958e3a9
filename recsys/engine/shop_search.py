"""A whole search as a shop shows it: read the text, search by what it says, count facets.

Shapes: N items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch

from recsys.artifact import Artifact
from recsys.engine.catalogue import Catalogue
from recsys.engine.filters import Filter, ItemFilters
from recsys.engine.final_ranking import scores_below
from recsys.engine.query.facets import Facet, Facets
from recsys.engine.query.suggest import Suggester, Suggestion
from recsys.engine.query.understander import QueryUnderstander
from recsys.engine.query.understanding import QueryUnderstanding
from recsys.engine.recommender import POPULAR, Event, Recommender
from recsys.engine.search import FoundItem, SearchAnswer, Searcher, SearchQuery
from recsys.index.text_vectors import QueryEncoder
from recsys.ranker.ranker import RANKED

FACET_DEPTH = 200
"""Results over which facets are counted."""


@dataclass(frozen=True, slots=True)
class ShopQuery:
    """A search as it is asked; `understanding` is one that a client has seen and may have edited.

    With `use_understanding` the search is for what was understood; else for the text as it is.
    `now` is as in `SearchQuery`.
    """

    text: str
    history: Sequence[Event] = field(default_factory=tuple)
    top_k: int = 10
    personal: float = 0.0
    filters: Sequence[Filter] = field(default_factory=tuple)
    understanding: QueryUnderstanding | None = None
    use_understanding: bool = True
    facets: Sequence[str] = field(default_factory=tuple)
    now: float | None = None


@dataclass(frozen=True, slots=True)
class ShopAnswer:
    """What was found and how the text was read.

    `relaxed` says that nothing fitted all that was understood, so that the text alone was searched.
    """

    found: SearchAnswer
    understanding: QueryUnderstanding
    relaxed: bool
    facets: list[Facet]


class ShopSearch:
    """Understands, searches, completes and counts for one catalogue. Threads may share it."""

    def __init__(
        self,
        searcher: Searcher,
        catalogue: Catalogue,
        understander: QueryUnderstander,
        suggester: Suggester,
        facets: Facets,
    ) -> None:
        self._searcher = searcher
        self._unranked = searcher.with_ranker(None) if searcher.is_ranked else searcher
        self._catalogue = catalogue
        self._understander = understander
        self._suggester = suggester
        self._facets = facets
        self._filters = ItemFilters(catalogue.columns, len(catalogue))
        ids = map(str, catalogue.vocabulary.item_ids)
        pairs = zip(catalogue.titles, ids, catalogue.removed.tolist(), strict=True)
        self._by_title = {title: item_id for title, item_id, removed in pairs if not removed}

    @classmethod
    def load(
        cls,
        checkpoint: Artifact,
        index: Artifact,
        recommender: Recommender,
        ranker: Artifact | None = None,
    ) -> Self:
        """Of an index that holds what search needs, and a final ranker that was fitted to it.

        Raises:
            ValueError: the index was made without search, or the ranker was fitted to another.
        """
        searcher = Searcher.load(checkpoint, index, recommender, ranker)
        items = index.read_table("items.parquet")
        return cls(
            searcher,
            recommender.catalogue,
            QueryUnderstander(items),
            Suggester.of_catalogue(items),
            Facets(items),
        )

    @property
    def query_encoder(self) -> QueryEncoder | None:
        """See `Searcher`."""
        return self._searcher.query_encoder

    def with_items(
        self, recommender: Recommender, words: Mapping[str, Sequence[str]], text_ME: torch.Tensor
    ) -> ShopSearch:
        """See `Searcher`. How a text is read and completed stays as the index has it, but a text
        that is completed to a title names no item that was removed."""
        catalogue = recommender.catalogue
        return ShopSearch(
            self._searcher.with_items(recommender, words, text_ME),
            catalogue,
            self._understander,
            self._suggester,
            Facets(catalogue.items),
        )

    def check(self, query: ShopQuery) -> None:
        """Hold that a search can be answered.

        Raises:
            ValueError: a filter or a facet names no column that fits, or a number is out of range.
        """
        self._filters.check(query.filters)
        self._facets.count(np.empty(0, dtype=np.int64), query.facets)
        self._searcher.check(SearchQuery(query.text, (), query.top_k, query.personal))

    def search(self, query: ShopQuery) -> ShopAnswer:
        """Search for what a text says.

        Raises:
            ValueError: see `check`.
        """
        self.check(query)
        read = query.understanding or self._understander.understand(query.text)
        wanted = self._understood(read) if query.use_understanding else []
        found = self._find(query, read, [*query.filters, *wanted])
        relaxed = bool(wanted) and (found.source == POPULAR or not found.items)
        if relaxed:
            found = self._find(query, read, query.filters)
        facets = self._count(found, query.facets)
        shown = replace(found, items=found.items[: query.top_k])
        return ShopAnswer(shown, read, relaxed, facets)

    def sort(
        self, text: str, item_ids: Sequence[str], history: Sequence[Event], personal: float
    ) -> list[FoundItem]:
        """Those of the given items that fit a text, best first; the others are left out.

        A final ranker has learned what an item is beside all that a search finds, and its
        probabilities mean nothing else: with one, items stand as they do among the best `RANKED` of
        the whole search, and those that are not there follow in the order without a ranker.
        """
        asked = SearchQuery(text, history, RANKED, personal)
        best = self._fitting(self._searcher, asked) if self._searcher.is_ranked else []
        wanted = set(item_ids)
        head = [item for item in best if item.item_id in wanted]
        rest, _, _ = self._catalogue.find(list(wanted - {item.item_id for item in head}))
        if not rest:
            return head
        allowed = torch.zeros(len(self._catalogue), dtype=torch.bool)
        allowed[rest] = True
        tail = self._fitting(self._unranked, replace(asked, top_k=len(rest), allowed=allowed))
        if not head:
            return tail
        scores = scores_below([item.score for item in head], len(tail))
        return head + [replace(item, score=s) for item, s in zip(tail, scores, strict=True)]

    def suggest(self, text: str, top_k: int) -> list[tuple[Suggestion, str | None]]:
        """How a text that is being typed may go on; of a title, an item that has it."""
        found = self._suggester.suggest(text, top_k)
        return [(s, self._by_title.get(s.text) if s.kind == "title" else None) for s in found]

    def _understood(self, read: QueryUnderstanding) -> list[Filter]:
        """What was understood as filters that this catalogue has."""
        columns = self._catalogue.columns
        return [Filter(*given) for given in read.as_filters() if given[0] in columns]

    def _find(
        self, query: ShopQuery, read: QueryUnderstanding, filters: Sequence[Filter]
    ) -> SearchAnswer:
        text = read.search_text() if query.use_understanding else query.text
        depth = max(query.top_k, FACET_DEPTH if query.facets or read.unwanted() else 0)
        allowed = self._filters.allowed(filters)
        asked = SearchQuery(text, query.history, depth, query.personal, allowed, query.now)
        [answer] = self._searcher.search([asked])
        unwanted = read.unwanted() if query.use_understanding else []
        kept = [item for item in answer.items if not _names_any(item.title, unwanted)]
        return replace(answer, items=kept)

    def _fitting(self, searcher: Searcher, query: SearchQuery) -> list[FoundItem]:
        [answer] = searcher.search([query])
        return [] if answer.source == POPULAR else answer.items

    def _count(self, found: SearchAnswer, columns: Sequence[str]) -> list[Facet]:
        if not columns:
            return []
        rows, _, _ = self._catalogue.find([item.item_id for item in found.items])
        return self._facets.count(np.array(rows, dtype=np.int64), columns)


def _names_any(title: str | None, words: Sequence[str]) -> bool:
    folded = (title or "").casefold()
    return any(word.casefold() in folded for word in words)

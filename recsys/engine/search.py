"""How it searches: text -> items by words and by meaning, for a user or for nobody in particular.

Evaluation and serving both call this, so that what is measured is what is served.

Shapes: N items, K results, E width of the language model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch

from recsys.artifact import Artifact
from recsys.engine.catalogue import Catalogue
from recsys.engine.final_ranking import (
    Found,
    candidates_of,
    item_facts,
    ranked,
    ranker_of,
    with_cross,
    with_sequence,
)
from recsys.engine.popularity import PopularityRanking
from recsys.engine.recommender import POPULAR, Event, Query, Recommender
from recsys.index.changed_index import change
from recsys.index.fusion import DEPTH, FUSION, Fusion, fuse, fuse_in_order, load_fusion
from recsys.index.item_index import ItemIndex, load_index
from recsys.index.lexical import (
    LEXICAL,
    LexicalIndex,
    check_query,
    load_lexical,
    plain_query,
    split_words,
)
from recsys.index.text_vectors import TEXT_VECTORS, QueryEncoder
from recsys.ranker.cross import CrossScorer
from recsys.ranker.features import Candidates, ItemFacts
from recsys.ranker.ranker import FinalRanker

SEARCH = "search"
PERSONAL_DEPTH = 200
"""Results that a history puts in another order; what is below them stays below."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search: a text, and perhaps whose.

    `personal` is how much the history (oldest first) counts, from 0, not at all, to 1, where it
    alone orders the best results. `allowed` (N,) bool are the items that may be found, None
    for all; what stands beyond the N of the index is not read. A final ranker tells ages of items
    from `now` (Unix seconds), None for when it answers.
    """

    text: str
    history: Sequence[Event] = field(default_factory=tuple)
    top_k: int = 10
    personal: float = 0.0
    allowed: torch.Tensor | None = None
    now: float | None = None


@dataclass(frozen=True, slots=True)
class FoundItem:
    """An item with its score and its places by words and by meaning, from 1; None beyond those that
    count. `probability` is that it fits, where a final ranker has ordered it."""

    item_id: str
    title: str | None
    score: float
    lexical_rank: int | None = None
    dense_rank: int | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What one search found, best first.

    `source` is "search", or "popular" where nothing matched: then scores are shares of all training
    events. `personal` tells whether a history had a say; `unknown_items` are its ids that the
    catalogue does not have.
    """

    items: list[FoundItem]
    source: str
    personal: bool = False
    unknown_items: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class DenseSearch:
    """Search by meaning: an encoder of queries and the items in its space."""

    encoder: QueryEncoder
    items: ItemIndex


class Searcher:
    """Ranks items by words (BM25) and by meaning, joins both, and lets a history reorder the best.

    Nothing of it changes, so any number of threads may ask it at once. Without a `recommender`
    every search is a plain one. A `ranker` orders the best once more, before a history does.
    """

    def __init__(
        self,
        lexical: LexicalIndex,
        dense: DenseSearch | None,
        fusion: Fusion,
        catalogue: Catalogue,
        recommender: Recommender | None = None,
        ranker: FinalRanker | None = None,
    ) -> None:
        self._lexical = lexical
        self._dense = dense
        self._fusion = fusion
        self._catalogue = catalogue
        self._recommender = recommender
        self._ranker = ranker
        self._facts = item_facts(catalogue, ranker.added_column if ranker else "")
        self._ranking = catalogue.ranking
        self._popularity = PopularityRanking(catalogue.train_counts, catalogue.removed)

    @classmethod
    def load(
        cls,
        checkpoint: Artifact,
        index: Artifact,
        recommender: Recommender | None,
        ranker: Artifact | None = None,
    ) -> Self:
        """The searcher of an index, beside the recommender of the same index if there is one, with
        a final ranker that was fitted to it if there is one.

        Raises:
            ValueError: the index was made without search, or the ranker was fitted to another.
        """
        if not index.names(LEXICAL):
            raise ValueError(
                f"{index.uri} holds nothing to search: set search.enabled and build the index again"
            )
        items = "items.parquet"
        catalogue = recommender.catalogue if recommender else Catalogue(index.read_table(items))
        lexical = load_lexical(index.read_bytes(LEXICAL), catalogue.ranking)
        prompt = index.manifest.config["search"]["query_prompt"]
        final = None if ranker is None else ranker_of(ranker, index)
        if not index.names(TEXT_VECTORS):
            return cls(lexical, None, Fusion(dense_weight=0.0), catalogue, recommender, final)
        encoder = QueryEncoder.load(checkpoint, prompt)
        assert encoder is not None
        dense = DenseSearch(encoder, load_index(index.read_bytes(TEXT_VECTORS)))
        fusion = load_fusion(index.read_bytes(FUSION))
        return cls(lexical, dense, fusion, catalogue, recommender, final)

    @property
    def fusion(self) -> Fusion:
        """How rankings are joined."""
        return self._fusion

    @property
    def is_dense(self) -> bool:
        """Whether items can be found by meaning."""
        return self._dense is not None

    @property
    def is_ranked(self) -> bool:
        """Whether a final ranker orders the best once more."""
        return self._ranker is not None

    @property
    def query_encoder(self) -> QueryEncoder | None:
        """The language model; None where items are found by words alone."""
        return self._dense and self._dense.encoder

    def with_fusion(self, fusion: Fusion) -> Searcher:
        """The same items and encoder, with rankings joined otherwise; see `Fusion`."""
        return Searcher(
            self._lexical, self._dense, fusion, self._catalogue, self._recommender, self._ranker
        )

    def with_ranker(self, ranker: FinalRanker | None) -> Searcher:
        """The same search with its best results in the order of a final ranker, or without one.

        Raises:
            ValueError: the ranker reads a column that the items do not have.
        """
        return Searcher(
            self._lexical, self._dense, self._fusion, self._catalogue, self._recommender, ranker
        )

    def with_items(
        self, recommender: Recommender, words: Mapping[str, Sequence[str]], text_ME: torch.Tensor
    ) -> Searcher:
        """A search of a recommender's catalogue, which grew out of this one's.

        `words` by id are those of items that are new or changed, and `text_ME` their text vectors
        of length 1, in the same order. Items that the catalogue has removed are found no more.
        """
        catalogue = recommender.catalogue
        ranking = catalogue.ranking
        items, _, _ = catalogue.find(list(words))
        dense = self._dense
        if dense is not None:
            of = torch.tensor(items, dtype=torch.int64)
            below = len(self._catalogue)
            order_N, removed_N = ranking.order_N, ranking.removed_N
            changed = change(dense.items, below, of, text_ME, order_N, removed_N)
            dense = replace(dense, items=changed)
        return Searcher(
            self._lexical.with_words(dict(zip(items, words.values(), strict=True)), ranking),
            dense,
            self._fusion,
            catalogue,
            recommender,
            self._ranker,
        )

    def facts(self, added_column: str = "") -> ItemFacts:
        """What a final ranker is told of the items; see `item_facts`.

        Raises:
            ValueError: the items have no such column of numbers.
        """
        return item_facts(self._catalogue, added_column)

    def check(self, query: SearchQuery) -> None:
        """Hold that a search can be answered.

        Raises:
            ValueError: the text is too long, a number is out of range, or the mask does not fit.
        """
        check_query(query.text)
        if query.top_k < 1:
            raise ValueError(f"top_k is {query.top_k}: send 1 or more")
        if not 0 <= query.personal <= 1:
            raise ValueError(f"personal is {query.personal}: send 0 to 1")
        size = len(self._catalogue)
        if query.allowed is not None and (query.allowed.ndim != 1 or len(query.allowed) < size):
            raise ValueError(f"the mask is {tuple(query.allowed.shape)}: it must be ({size},)")

    def search(self, queries: Sequence[SearchQuery]) -> list[SearchAnswer]:
        """Answer searches together, with one pass of the language model.

        A text without a letter or number, or whose words no item has where meaning does not count,
        gets the most popular items.

        Raises:
            ValueError: see `check`.
        """
        queries = [self._read(query) for query in queries]
        texts = [plain_query(query.text) for query in queries]
        says = [row for row, text in enumerate(texts) if split_words(text)]
        found = self._find([texts[row] for row in says], [queries[row] for row in says])
        by_row = dict(zip(says, found, strict=True))
        return [self._answer(query, by_row.get(row)) for row, query in enumerate(queries)]

    def candidates(
        self, queries: Sequence[SearchQuery], cross: CrossScorer | None = None
    ) -> list[Candidates]:
        """What the final ranker would order for each query, in the order without it.

        Raises:
            ValueError: see `check`.
        """
        queries = [self._read(query) for query in queries]
        texts = [plain_query(query.text) for query in queries]
        rows = zip(queries, texts, self._join_all(texts, queries), strict=True)
        return [self._candidates(*row, cross, True) for row in rows]

    def _read(self, query: SearchQuery) -> SearchQuery:
        """The query, checked, without what its mask says of items that came after the index."""
        self.check(query)
        if query.allowed is None:
            return query
        return replace(query, allowed=query.allowed[: len(self._catalogue)])

    def _find(self, texts: list[str], queries: list[SearchQuery]) -> list[Found]:
        rows = zip(queries, texts, self._join_all(texts, queries), strict=True)
        return [self._rank(*row) for row in rows]

    def _rank(self, query: SearchQuery, text: str, found: Found) -> Found:
        ranker = self._ranker
        if ranker is None or not found.items:
            return found
        candidates = self._candidates(query, text, found, ranker.cross, ranker.reads_histories)
        now = time.time() if query.now is None else query.now
        return ranked(found, candidates, ranker, self._facts, now)

    def _candidates(
        self,
        query: SearchQuery,
        text: str,
        found: Found,
        cross: CrossScorer | None,
        by_history: bool,
    ) -> Candidates:
        """With a history's say only where the query lets it count."""
        made = candidates_of(text, found, self._lexical, self._dense and self._dense.items)
        history = query.history if query.personal > 0 else ()
        if by_history and history and self._recommender is not None and len(made.items):
            ids = self._catalogue.vocabulary.item_ids[made.items]
            [liked] = self._recommender.rank_items([Query(history)], [ids.tolist()])
            made = made if liked.source == POPULAR else with_sequence(made, liked.items, ids)
        if cross is not None:
            made = with_cross(made, cross, self._catalogue, [event.item_id for event in history])
        return made

    def _join_all(self, texts: list[str], queries: list[SearchQuery]) -> list[Found]:
        depths = [max(DEPTH, query.top_k) for query in queries]
        meaning = self._by_meaning(texts, queries, max(depths, default=0))
        rows = zip(texts, queries, depths, meaning, strict=True)
        return [
            self._join(self._by_words(text, query, depth), near_K[:depth], vector_E)
            for text, query, depth, (near_K, vector_E) in rows
        ]

    def _by_words(self, text: str, query: SearchQuery, depth: int) -> torch.Tensor:
        if self._fusion.dense_weight == 1:
            return torch.empty(0, dtype=torch.int64)
        return self._lexical.search(text, depth, query.allowed)[1]

    def _by_meaning(
        self, texts: list[str], queries: list[SearchQuery], depth: int
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """(K,) item indexes and the vector (E,) for each text."""
        if self._dense is None or self._fusion.dense_weight == 0 or not texts:
            return [(torch.empty(0, dtype=torch.int64), None)] * len(texts)
        vectors_BE = self._fusion.adapt(self._dense.encoder.encode(texts))
        allowed = [query.allowed for query in queries]
        found = self._dense.items.search(vectors_BE, depth, [[]] * len(texts), allowed)
        rows = zip(*found, vectors_BE, strict=True)
        return [(items[scores > -torch.inf], vector_E) for scores, items, vector_E in rows]

    def _join(
        self, words_K: torch.Tensor, meaning_K: torch.Tensor, vector_E: torch.Tensor | None
    ) -> Found:
        items_K, scores_K = fuse(words_K, meaning_K, self._fusion.dense_weight)
        scores_1K, items_1K = self._ranking.settled(scores_K[None], items_K[None])
        both = items_1K[0].tolist(), scores_1K[0].tolist()
        return Found(words_K.tolist(), meaning_K.tolist(), *both, vector_E)

    def _answer(self, query: SearchQuery, found: Found | None) -> SearchAnswer:
        if found is None or not found.items:
            return self._popular(query)
        answer = SearchAnswer([], SEARCH)
        if self._recommender is not None and query.personal > 0 and query.history:
            found, answer = self._personalised(self._recommender, query, found)
        by_words = {item: rank for rank, item in enumerate(found.words, start=1)}
        by_meaning = {item: rank for rank, item in enumerate(found.meaning, start=1)}
        rows = list(zip(found.items, found.scores, strict=True))[: query.top_k]
        items = [
            self._item(
                item, score, by_words.get(item), by_meaning.get(item), found.probabilities.get(item)
            )
            for item, score in rows
        ]
        return replace(answer, items=items)

    def _popular(self, query: SearchQuery) -> SearchAnswer:
        items, shares = self._popularity.top(query.top_k, [], query.allowed)
        rows = zip(items, shares, strict=True)
        return SearchAnswer([self._item(item, share) for item, share in rows], POPULAR)

    def _personalised(
        self, recommender: Recommender, query: SearchQuery, found: Found
    ) -> tuple[Found, SearchAnswer]:
        """The best results ranked by relevance and, as much as it counts, by the recommender.

        Both are ranks over the same items, joined as words and meaning are. A history of which no
        item is known changes nothing.
        """
        head = found.items[:PERSONAL_DEPTH]
        ids = [str(self._catalogue.vocabulary.item_ids[item]) for item in head]
        [ranked] = recommender.rank_items([Query(query.history)], [ids])
        asked = {event.item_id for event in query.history}
        unknown = [item_id for item_id in ranked.unknown_items if item_id in asked]
        answer = SearchAnswer([], SEARCH, ranked.source != POPULAR, unknown)
        if not answer.personal:
            return found, answer
        liked, _, _ = self._catalogue.find([item.item_id for item in ranked.items])
        # Below the head the order is that of the search, and so must be the scores.
        return found.with_head(*fuse_in_order(head, liked, query.personal)), answer

    def _item(
        self,
        item: int,
        score: float,
        lexical_rank: int | None = None,
        dense_rank: int | None = None,
        probability: float | None = None,
    ) -> FoundItem:
        named = self._catalogue.recommendation(item, score)
        return FoundItem(named.item_id, named.title, score, lexical_rank, dense_rank, probability)

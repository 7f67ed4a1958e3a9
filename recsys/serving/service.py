"""What one replica holds, and what it does for a request. Knows neither Ray nor HTTP.

The model computes in threads, so that a replica reads requests while it answers others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cachetools import TTLCache
from opentelemetry.trace import SpanContext, get_current_span

from recsys.config import ServeArgs, VariantConfig
from recsys.engine.query.suggest import Suggestion
from recsys.engine.recommender import Query
from recsys.engine.search import SEARCH, FoundItem
from recsys.engine.shop_search import ShopAnswer, ShopQuery, ShopSearch
from recsys.engine.stages import watched_by
from recsys.schema import Answer, Explanation, Recommendation
from recsys.serving.experiment_file import ExperimentFile
from recsys.serving.item_changes import ItemChanges
from recsys.serving.metrics import ServingMetrics
from recsys.serving.models import Models
from recsys.serving.served_model import ServedModel
from recsys.serving.tracing import Traces
from recsys.serving.user_memory import UserMemory
from recsys.store.item_log import ItemRow

Answered = tuple[Answer, ServedModel]
CHANGE_S = 5.0
"""How long the answer to a change of an item waits until it is applied here."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A query that waits for its batch, and the span of its request."""

    query: Query
    span: SpanContext


@dataclass(frozen=True, slots=True)
class ChangedItem:
    """The number of a change, and whether this replica has it by now."""

    number: int
    applied: bool


Batching = Callable[
    [Callable[[Sequence[Waiting]], list[Any]], ServeArgs], Callable[[Waiting], Awaitable[Any]]
]
"""Turns a function of many queries into one of a single query; `batching.batched` is one."""


class Refused(Exception):
    """What was asked does not fit this service; the message says what does."""


class SearchOff(Exception):
    """What was asked needs search, which this service does not have."""


class ItemsOff(Exception):
    """What was asked changes items, which this service or its model cannot."""


class RecommenderService:
    """Models, users' memory and experiments behind the routes."""

    def __init__(
        self,
        args: ServeArgs,
        models: Models,
        memory: UserMemory,
        experiments: ExperimentFile,
        batching: Batching,
        traces: Traces | None = None,
        items: ItemChanges | None = None,
    ) -> None:
        self.args = args
        self.models = models
        self.memory = memory
        self.experiments = experiments
        self.metrics = ServingMetrics()
        self.traces = traces or Traces()
        self.items = items
        if items is not None:
            items.follow(models)
        self._answer_one = {
            alias: batching(partial(self._answer, alias), args) for alias in models.aliases
        }
        self._cache: TTLCache[str, Answer] = TTLCache(args.cache_size, args.cache_ttl_s)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time and trace what is done inside, and its parts."""
        with self.metrics.stage(name), self.traces.span(name), watched_by(self.stage):
            yield

    def model_for(self, variants: dict[str, VariantConfig]) -> ServedModel:
        """The model that answers a user who is in these variants, at this moment."""
        return self.models.of(_alias_of(variants))

    async def recommend(self, query: Query, variants: dict[str, VariantConfig]) -> Answered:
        """Answer one request in the same forward pass as those that wait beside it.

        Raises:
            Refused: a filter does not fit the items.
        """
        query = _varied(query, variants)
        alias = _alias_of(variants)
        model = self.model_for(variants)
        _hold(model.recommender.check, query)
        # All that the answer depends on, so that a new event or a new model is never answered old.
        key = f"{model.state} {query!r}"
        kept = self._cache.get(key)
        self.metrics.cache("answers", kept is not None)
        if kept is not None:
            return kept, model
        with self.stage("recommend"):
            waiting = Waiting(query, get_current_span().get_span_context())
            answer, model = await self._answer_one[self.models.known(alias)](waiting)
        if self.args.cache_size:
            self._cache[f"{model.state} {query!r}"] = answer
        return answer, model

    async def similar_items(
        self, item_id: str, top_k: int, filters: Sequence[Any]
    ) -> tuple[Answer | None, ServedModel]:
        """The items nearest to one item; None where the id is unknown.

        Raises:
            Refused: a filter does not fit the items.
        """
        model = self.models.of("live")
        _hold(model.recommender.check, Query([], filters=filters))
        with self.stage("similar_items"):
            find = partial(model.recommender.similar_items, item_id, top_k, filters=filters)
            return await asyncio.to_thread(find), model

    async def rank(
        self,
        query: Query,
        item_ids: Sequence[str],
        text: str | None,
        personal: float,
        variants: dict[str, VariantConfig],
    ) -> Answered:
        """The order of given items for a history, and for a text if there is one.

        Raises:
            SearchOff: there is a text and this service does not search.
        """
        model = self.model_for(variants)
        with self.stage("rank"):
            rank = model.recommender.rank_items
            [answer] = await asyncio.to_thread(rank, [query], [item_ids])
            if text is None:
                return answer, model
            sort = _search_of(model).sort
            found = await asyncio.to_thread(sort, text, item_ids, query.history, personal)
        return _found_first(answer, found, model.ranker is not None), model

    async def search(
        self, query: ShopQuery, variants: dict[str, VariantConfig]
    ) -> tuple[ShopAnswer, ServedModel]:
        """Items that fit a text.

        Raises:
            SearchOff: this service does not search.
            Refused: a filter or a facet does not fit the items.
        """
        for variant in variants.values():
            if variant.personal is not None:
                query = replace(query, personal=variant.personal)
        model = self.model_for(variants)
        _hold(_search_of(model).check, query)
        with self.stage("search"):
            return await asyncio.to_thread(_search_of(model).search, query), model

    def suggest(self, text: str, top_k: int) -> list[tuple[Suggestion, str | None]]:
        """How a text that is being typed may go on.

        Raises:
            SearchOff: this service does not search.
        """
        with self.stage("suggest"):
            return _search_of(self.models.of("live")).suggest(text, top_k)

    async def put_item(self, item_id: str, row: ItemRow) -> tuple[ChangedItem, list[str]]:
        """Let an item be this from now on; also tells what of the row is not used.

        Raises:
            ItemsOff: this service or its model takes no items.
            Refused: the row does not fit the items.
            StoreUnavailable: nothing is changed; to be tried again later.
        """
        items, model = _items_of(self), self.models.of("live")
        if model.encoder is None:
            raise ItemsOff("this model knows items by their IDs alone: a new one needs training")
        try:
            warnings = await asyncio.to_thread(model.check_item, item_id, row)
        except ValueError as error:
            raise Refused(str(error)) from error
        return await self._change(items, item_id, row), warnings

    async def remove_item(self, item_id: str) -> ChangedItem:
        """Answer an item no more.

        Raises:
            ItemsOff: this service takes no changes of items.
            StoreUnavailable: nothing is changed; to be tried again later.
        """
        return await self._change(_items_of(self), item_id, None)

    async def _change(self, items: ItemChanges, item_id: str, row: ItemRow | None) -> ChangedItem:
        number = await asyncio.to_thread(items.append, item_id, row)
        with suppress(TimeoutError):
            async with asyncio.timeout(CHANGE_S):
                while not items.has(number):  # no thread waits, so that others find one
                    await asyncio.sleep(CHANGE_S / 500)
        self.metrics.item_changed("put" if row is not None else "removed")
        return ChangedItem(number, items.has(number))

    async def explain(self, model: ServedModel, query: Query, answer: Answer) -> list[Explanation]:
        """Why each item was answered."""
        with self.stage("explain"):
            ids = [item.item_id for item in answer.items]
            return await asyncio.to_thread(model.recommender.explain, query, ids)

    def close(self) -> None:
        """Stop following, and write what is in memory."""
        self.models.close()
        if self.items is not None:
            self.items.close()
        self.memory.close()
        self.traces.close()

    def _answer(self, alias: str, waiting: Sequence[Waiting]) -> list[Answered]:
        # Once: a model that is flipped in meanwhile answers the next batch.
        model = self.models.of(alias)
        self.metrics.batch(len(waiting))
        batch = self.traces.batch([one.span for one in waiting])
        with self.metrics.stage("compute"), batch, watched_by(self.stage):
            answers = model.recommender.recommend([one.query for one in waiting])
        return [(answer, model) for answer in answers]


def _hold(check: Callable[[Any], None], query: Any) -> None:
    """Only what the check says is the client's fault: any other ValueError is ours."""
    try:
        check(query)
    except ValueError as error:
        raise Refused(str(error)) from error


def _items_of(service: RecommenderService) -> ItemChanges:
    if service.items is None:
        raise ItemsOff("this service takes no changes of items: set 'items' in its config")
    return service.items


def _search_of(model: ServedModel) -> ShopSearch:
    if model.search is None:
        raise SearchOff("this service does not search: its config or its index has search off")
    return model.search


def _found_first(answer: Answer, found: Sequence[FoundItem], is_ranked: bool) -> Answer:
    """The items that fit the text, best first, and then the others as they were.

    With a final ranker a probability is that an item fits the text, and unknown of the others: two
    meanings in one list would invite to compare them.
    """
    hits = {hit.item_id: hit for hit in found}
    places = {item_id: place for place, item_id in enumerate(hits)}
    ordered = sorted(answer.items, key=lambda item: places.get(item.item_id, len(places)))
    items = [_of_text(item, hits.get(item.item_id), is_ranked) for item in ordered]
    return replace(answer, items=items, source=SEARCH)


def _of_text(item: Recommendation, hit: FoundItem | None, is_ranked: bool) -> Recommendation:
    probability = item.probability
    if is_ranked:
        probability = hit.probability if hit else None
    return replace(item, score=hit.score if hit else 0.0, probability=probability)


def _alias_of(variants: dict[str, VariantConfig]) -> str:
    """The candidate answers where any of a user's variants says so."""
    return "candidate" if any(v.alias == "candidate" for v in variants.values()) else "live"


def _varied(query: Query, variants: dict[str, VariantConfig]) -> Query:
    """The query with what a user's variants set."""
    for variant in variants.values():
        wanted = {
            "diversity": variant.diversity,
            "max_per_category": variant.max_per_category,
        }
        query = replace(query, **{n: v for n, v in wanted.items() if v is not None})
    return query

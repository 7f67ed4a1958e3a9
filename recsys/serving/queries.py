"""Requests in the engine's words. Not methods of the requests, so that a client needs no engine."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.engine.filters import Filter
from recsys.engine.recommender import Event, Query
from recsys.engine.shop_search import ShopQuery
from recsys.serving.api.requests import (
    ItemFilter,
    PersonalRequest,
    RecommendRequest,
    SearchRequest,
)


def events_of(request: PersonalRequest) -> list[Event] | None:
    """The history that was sent; None where none was."""
    if request.history is None:
        return None
    return [
        Event(e) if isinstance(e, str) else Event(e.item_id, e.timestamp, e.event)
        for e in request.history
    ]


def filters_of(filters: Sequence[ItemFilter]) -> tuple[Filter, ...]:
    """The filters, in their order."""
    return tuple(
        Filter(f.column, tuple(f.values), f.minimum, f.maximum, f.negated) for f in filters
    )


def query_of(request: RecommendRequest, history: Sequence[Event]) -> Query:
    """The request, for a history sent or remembered."""
    return Query(
        history,
        request.top_k,
        tuple(request.exclude),
        filters=filters_of(request.filters),
        diversity=request.diversity,
        max_per_category=request.max_per_category,
        context=request.context,
    )


def shop_query_of(request: SearchRequest, history: Sequence[Event]) -> ShopQuery:
    """The search, for a history sent or remembered."""
    return ShopQuery(
        request.text,
        history,
        request.top_k,
        request.personal,
        filters_of(request.filters),
        request.query_understanding,
        request.use_understanding,
        tuple(request.facets),
    )

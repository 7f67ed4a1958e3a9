"""Search, and what a text that is being typed may become."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from recsys.serving.api.requests import MAX_QUERY_LENGTH, SearchRequest
from recsys.serving.api.responses import SearchResponse, SuggestedText, SuggestResponse
from recsys.serving.asking import Asking
from recsys.serving.queries import shop_query_of
from recsys.serving.routes.limits import check_lists, check_size
from recsys.serving.service import RecommenderService

MAX_SUGGESTIONS = 50


def search_routes(service: RecommenderService) -> APIRouter:
    """The routes that read what somebody types."""
    router = APIRouter(tags=["search"])

    @router.post("/v1/search")
    async def search(request: SearchRequest, http: Request) -> SearchResponse:
        """Items that fit a text; popular ones, marked so, where none does."""
        check_size("top_k", request.top_k, service.args.max_top_k)
        check_lists(service.args, history=request.history)
        asking = await Asking.of(service, request, http.state)
        query = shop_query_of(request, asking.history)
        answer, model = await service.search(query, asking.variants)
        return asking.search_response(answer, model)

    @router.get("/v1/suggest")
    async def suggest(
        text: Annotated[str, Query(max_length=MAX_QUERY_LENGTH)],
        top_k: Annotated[int, Query(ge=1, le=MAX_SUGGESTIONS)] = 8,
    ) -> SuggestResponse:
        """Titles, categories and brands that begin so."""
        found = service.suggest(text, top_k)
        told = [SuggestedText(text=s.text, kind=s.kind, item_id=item) for s, item in found]
        return SuggestResponse(suggestions=told)

    return router

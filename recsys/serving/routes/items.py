"""Items by themselves: what is known of one, and what is like it."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request

from recsys.serving.api.requests import SimilarItemsRequest
from recsys.serving.api.responses import ItemResponse, RecommendResponse
from recsys.serving.queries import filters_of
from recsys.serving.routes.limits import check_size
from recsys.serving.service import RecommenderService


def items_routes(service: RecommenderService) -> APIRouter:
    """The routes that need no user."""
    router = APIRouter(tags=["items"])

    @router.post("/v1/similar_items")
    async def similar_items(request: SimilarItemsRequest, http: Request) -> RecommendResponse:
        """The items nearest to one item."""
        check_size("top_k", request.top_k, service.args.max_top_k)
        filters = filters_of(request.filters)
        answer, model = await service.similar_items(request.item_id, request.top_k, filters)
        if answer is None:
            raise _unknown(request.item_id)
        service.metrics.answered("similar_items", answer, model)
        http.state.model_version = model.version
        return RecommendResponse.of(answer, model.version)

    @router.get("/v1/items/{item_id:path}")
    async def item(item_id: str, http: Request) -> ItemResponse:
        """What is known of an item."""
        model = service.models.of("live")
        found = model.recommender.item(item_id)
        if found is None:
            raise _unknown(item_id)
        http.state.model_version = model.version
        return ItemResponse(**found, model_version=model.version)

    return router


def _unknown(item_id: str) -> HTTPException:
    return HTTPException(404, f"item '{item_id}' is not in the catalogue")

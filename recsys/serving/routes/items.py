"""Items by themselves: what is known of one, what is like it, and that it changes."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request

from recsys.serving.api.requests import MAX_ID_LENGTH, ItemRequest, SimilarItemsRequest
from recsys.serving.api.responses import ItemChangedResponse, ItemResponse, RecommendResponse
from recsys.serving.queries import filters_of
from recsys.serving.routes.limits import check_size
from recsys.serving.service import ChangedItem, RecommenderService
from recsys.store.histories import StoreUnavailable

LATER = {"Retry-After": "5"}
PathId = Annotated[str, Path(min_length=1, max_length=MAX_ID_LENGTH)]

log = logging.getLogger(__name__)


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

    @router.put("/v1/items/{item_id:path}")
    async def put_item(item_id: PathId, request: ItemRequest, http: Request) -> ItemChangedResponse:
        """Add an item, or let it be another from now on."""
        row = {**request.attributes, "title": request.title}
        try:
            done, warnings = await service.put_item(item_id, row)
        except StoreUnavailable as error:
            raise _later(error) from error
        return _changed(service, http, item_id, done, warnings)

    @router.delete("/v1/items/{item_id:path}")
    async def remove_item(item_id: PathId, http: Request) -> ItemChangedResponse:
        """Answer an item no more; one that nobody knows is remembered as removed."""
        try:
            done = await service.remove_item(item_id)
        except StoreUnavailable as error:
            raise _later(error) from error
        return _changed(service, http, item_id, done, [])

    return router


def _changed(
    service: RecommenderService, http: Request, item_id: str, done: ChangedItem, warnings: list[str]
) -> ItemChangedResponse:
    http.state.model_version = version = service.models.of("live").version
    return ItemChangedResponse(
        item_id=item_id,
        change=done.number,
        applied=done.applied,
        warnings=warnings,
        model_version=version,
    )


def _later(error: StoreUnavailable) -> HTTPException:
    log.error("an item is not changed: %s", error)
    return HTTPException(503, "the item was not changed: send it again later", LATER)


def _unknown(item_id: str) -> HTTPException:
    return HTTPException(404, f"item '{item_id}' is not in the catalogue")

"""Items for a user: recommendations, alone or many at once, and the order of given items."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.datastructures import State

from recsys.engine.recommender import Query
from recsys.serving.api.requests import BatchRequest, RankRequest, RecommendRequest
from recsys.serving.api.responses import BatchResponse, RecommendResponse
from recsys.serving.asking import Asking
from recsys.serving.queries import query_of
from recsys.serving.routes.limits import check_lists, check_size
from recsys.serving.service import RecommenderService


def recommend_routes(service: RecommenderService) -> APIRouter:
    """The routes that answer with items for a user."""
    router = APIRouter(tags=["items"])
    args = service.args

    @router.post("/v1/recommend")
    async def recommend(request: RecommendRequest, http: Request) -> RecommendResponse:
        """Items for a user; popular ones, marked so, where no item of the history is known."""
        return await _recommend(service, request, http.state)

    @router.post("/v1/batch")
    async def batch(request: BatchRequest, http: Request) -> BatchResponse:
        """Many requests in one; they are computed together."""
        check_size("requests", len(request.requests), args.max_batch_requests)
        answers = (_recommend(service, one, http.state) for one in request.requests)
        return BatchResponse(answers=await asyncio.gather(*answers))

    @router.post("/v1/rank")
    async def rank(request: RankRequest, http: Request) -> RecommendResponse:
        """Given items, scored for a user; best first."""
        check_size("item_ids", len(request.item_ids), args.max_candidates)
        check_lists(args, history=request.history)
        asking = await Asking.of(service, request, http.state)
        query = Query(asking.history, context=request.context)
        answer, model = await service.rank(
            query, request.item_ids, request.text, request.personal, asking.variants
        )
        why = await service.explain(model, query, answer) if request.explain else None
        return asking.response("rank", answer, model, why)

    return router


async def _recommend(
    service: RecommenderService, request: RecommendRequest, state: State
) -> RecommendResponse:
    check_size("top_k", request.top_k, service.args.max_top_k)
    check_lists(service.args, history=request.history, exclude=request.exclude)
    asking = await Asking.of(service, request, state)
    query = query_of(request, asking.history)
    answer, model = await service.recommend(query, asking.variants)
    why = await service.explain(model, query, answer) if request.explain else None
    return asking.response("recommend", answer, model, why)

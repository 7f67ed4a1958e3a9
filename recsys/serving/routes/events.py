"""What users did, and what is to be forgotten of them."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from recsys.serving.api.requests import EventsRequest
from recsys.serving.api.responses import EventsResponse, ForgottenResponse
from recsys.serving.routes.limits import check_size
from recsys.serving.service import RecommenderService
from recsys.serving.user_memory import MemoryUnavailable

NO_MEMORY = "this service remembers nothing: set 'store' or 'feedback' in its config"
NO_STORE = "this service remembers no histories: set 'store' in its config"
LATER = {"Retry-After": "5"}


def events_routes(service: RecommenderService) -> APIRouter:
    """The routes that write."""
    router = APIRouter(tags=["events"])
    memory = service.memory

    @router.post("/v1/events")
    async def events(request: EventsRequest) -> EventsResponse:
        """Remember events: the next answer for their users knows them already."""
        check_size("events", len(request.events), service.args.max_batch_requests)
        if memory.store is None and memory.feedback is None:
            raise HTTPException(501, NO_MEMORY)
        try:
            done = await memory.remember(request.events)
        except MemoryUnavailable as error:
            service.metrics.events("refused", len(request.events))
            raise HTTPException(503, str(error), LATER) from error
        service.metrics.events("accepted", done.accepted)
        service.metrics.events("duplicate", done.duplicates)
        return done

    @router.delete("/v1/users/{user_id:path}")
    async def forget(user_id: str) -> ForgottenResponse:
        """Delete the remembered history of a user; logged feedback needs `ray_jobs.forget`."""
        if memory.store is None:
            raise HTTPException(501, NO_STORE)
        try:
            return ForgottenResponse(deleted_events=await memory.forget(user_id))
        except MemoryUnavailable as error:
            raise HTTPException(503, str(error), LATER) from error

    return router

"""Which model answers, and whether it does."""

from __future__ import annotations

from fastapi import APIRouter

from recsys.serving.api.responses import ModelResponse
from recsys.serving.service import RecommenderService


def model_routes(service: RecommenderService) -> APIRouter:
    """Model and health."""
    router = APIRouter(tags=["model"])

    @router.get("/v1/model")
    async def model() -> ModelResponse:
        """Which model answers, and its config."""
        model = service.models.of("live")
        return ModelResponse(
            model_version=model.version,
            index_version=model.index.digest,
            ranker_version=model.ranker.digest if model.ranker else None,
            code_version=model.checkpoint.manifest.code_version,
            num_items=model.recommender.num_items,
            item_changes=model.changed_to,
            config=model.checkpoint.manifest.config,
            refused={one.version: one.reason for one in service.models.refused},
        )

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @router.get("/health/ready")
    async def ready() -> dict[str, str]:
        """Model and index are loaded: a replica answers only after that."""
        return {"status": "ready", "model_version": service.models.of("live").version}

    return router

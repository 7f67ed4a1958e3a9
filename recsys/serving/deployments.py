"""The Ray Serve deployment: HTTP routes and batching around the engine.

FastAPI reads annotations after Ray has copied the class to a replica, where strings could no longer
be resolved; so no `from __future__ import annotations` here.
"""

import asyncio
from collections.abc import Sequence

import torch
from fastapi import FastAPI
from ray import serve
from starlette.exceptions import HTTPException

from recsys.artifact import open_artifact
from recsys.config import ServeArgs
from recsys.engine.recommender import Query, Recommender
from recsys.schema import Answer
from recsys.serving.api import (
    ModelResponse,
    Problem,
    RecommendRequest,
    RecommendResponse,
    SimilarItemsRequest,
)
from recsys.serving.problems import install_problems
from recsys.storage import configure_storage

PROBLEMS = {status: {"model": Problem} for status in (400, 404, 422, 500)}

app = FastAPI(
    title="Recommender",
    description="Recommendations by a language model over item text and user behaviour.",
    responses=PROBLEMS,  # pyright: ignore
)
install_problems(app)


@serve.deployment
@serve.ingress(app)
class RecommenderDeployment:
    """One replica: a model and an index in memory, requests answered in batches."""

    def __init__(self, args: ServeArgs) -> None:
        configure_storage(args.storage)
        torch.set_num_threads(args.num_threads)
        self._args = args
        checkpoint = open_artifact(args.checkpoint, "checkpoint")
        index = open_artifact(args.index, "index")
        self._recommender = Recommender.load(checkpoint, index, args.filter_seen)
        self._checkpoint, self._index = checkpoint, index
        self._batched.set_max_batch_size(args.max_batch_size)  # pyright: ignore
        self._batched.set_batch_wait_timeout_s(args.batch_wait_timeout_s)  # pyright: ignore
        self._recommender.recommend([Query([], 1)])

    @app.post("/v1/recommend")
    async def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """Items for a user; popular ones, marked so, where no item of the history is known."""
        self._check_size("top_k", request.top_k, self._args.max_top_k)
        self._check_size("history", len(request.history), self._args.max_request_history)
        self._check_size("exclude", len(request.exclude), self._args.max_request_history)
        answer: Answer = await self._batched(request.query())  # pyright: ignore
        return RecommendResponse.of(answer, self._checkpoint.digest)

    @app.post("/v1/similar_items")
    async def similar_items(self, request: SimilarItemsRequest) -> RecommendResponse:
        """The items nearest to one item."""
        self._check_size("top_k", request.top_k, self._args.max_top_k)
        find = self._recommender.similar_items
        answer = await asyncio.to_thread(find, request.item_id, request.top_k)
        if answer is None:
            raise HTTPException(404, f"item '{request.item_id}' is not in the catalogue")
        return RecommendResponse.of(answer, self._checkpoint.digest)

    @app.get("/v1/model")
    async def model(self) -> ModelResponse:
        """Which model answers, and its config."""
        return ModelResponse(
            model_version=self._checkpoint.digest,
            index_version=self._index.digest,
            code_version=self._checkpoint.manifest.code_version,
            num_items=self._recommender.num_items,
            config=self._checkpoint.manifest.config,
        )

    @app.get("/health/live")
    async def live(self) -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready(self) -> dict[str, str]:
        """Model and index are loaded: a replica answers only after that."""
        return {"status": "ready", "model_version": self._checkpoint.digest}

    @serve.batch()  # pyright: ignore
    async def _batched(self, queries: list[Query]) -> Sequence[Answer]:
        # In a thread, so that the next requests are read while this batch is computed.
        return await asyncio.to_thread(self._recommender.recommend, queries)

    def _check_size(self, name: str, size: int, allowed: int) -> None:
        if size > allowed:
            raise HTTPException(422, f"{name}: {size} is more than this service allows: {allowed}")

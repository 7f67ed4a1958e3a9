"""The engine behind BentoML, for `benchmarks.serve_vs_bentoml`, in an environment of its own.

BentoML batches by itself: it passes the lists of requests that wait together as one list, and
learns how long to wait. It imports this file, so what is served comes by the environment.
"""

from __future__ import annotations

import os

import bentoml  # pyright: ignore[reportMissingImports]
import torch

from recsys.artifact import open_artifact
from recsys.engine.recommender import Recommender
from recsys.serving.api.requests import RecommendRequest
from recsys.serving.api.responses import RecommendResponse
from recsys.serving.queries import events_of, query_of

BATCH_SIZE = int(os.environ["BATCH_SIZE"])


@bentoml.service(workers=1, threads=1)
class Peer:
    """One worker that computes in one thread, as a replica of ours does."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        place = os.environ["PLACE"]
        checkpoint = open_artifact(f"{place}/checkpoint", "checkpoint")
        index = open_artifact(f"{place}/index", "index")
        self._version = checkpoint.digest
        self._recommender = Recommender.load(checkpoint, index, filter_seen=True)

    @bentoml.api(batchable=True, max_batch_size=BATCH_SIZE, route="/v1/recommend")
    def recommend(self, requests: list[RecommendRequest], /) -> list[RecommendResponse]:
        """An answer to each request."""
        queries = [query_of(request, events_of(request) or []) for request in requests]
        answers = self._recommender.recommend(queries)
        return [RecommendResponse.of(answer, self._version) for answer in answers]

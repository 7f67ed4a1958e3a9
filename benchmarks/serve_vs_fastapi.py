"""Requests/s of this service on Ray Serve against plain FastAPI and uvicorn with the same engine.

    python -m benchmarks.serve_vs_fastapi --output outputs/demo

Takes the checkpoint and the index that `make demo` leaves. One replica on one thread; the peer is
one process that answers each request in FastAPI's thread pool. Both parse and answer the same
bodies; ours also batches, times, counts and refuses strangers' hosts. Its caches are off.
Ray Serve runs with HAProxy and its throughput flags (`--plain` without them). Load comes from a
third process on the same cores. The ratio is at 64 clients; `detail` has the others.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import tyro
import uvicorn
from fastapi import FastAPI

from benchmarks.serving_process import (
    CLIENTS,
    FAST,
    ROOMY,
    Server,
    by_clients,
    ratios,
    ray_serve,
    running,
)
from ray_jobs.local_cluster import free_port
from recsys.artifact import open_artifact
from recsys.engine.recommender import Recommender
from recsys.serving.api.requests import RecommendRequest
from recsys.serving.api.responses import RecommendResponse
from recsys.serving.queries import events_of, query_of


@dataclass(frozen=True)
class Arguments:
    """What is served."""

    output: str = "outputs/demo"
    """Directory with `checkpoint` and `index`."""
    seconds: float = 8.0
    """Seconds of load for each number of clients."""
    plain: bool = False
    """Ray Serve as it comes, without HAProxy and throughput flags."""


def main(arguments: Arguments) -> None:
    """Run both servers in turns and print the result as one JSON object."""
    place = str(Path(arguments.output).absolute())
    flags = {} if arguments.plain else FAST
    with _peer(place) as server:
        theirs = [server.load(clients, arguments.seconds) for clients in CLIENTS]
    with ray_serve(place, flags, {}, ROOMY) as server:
        ours = [server.load(clients, arguments.seconds) for clients in CLIENTS]
    found = ratios(ours, theirs)
    result = {
        "benchmark": "serve_vs_fastapi",
        "peer": "FastAPI and uvicorn with the same engine",
        "ratio": found[CLIENTS[-1]],
        "target": 1.5,
        "higher_is_better": True,
        "detail": {
            "ratio_by_clients": found,
            "fastapi": by_clients(theirs),
            "serve": by_clients(ours),
        },
    }
    print(json.dumps(result))


def _peer(place: str) -> AbstractContextManager[Server]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serve_vs_fastapi", "peer", place, str(port)]
    return running(command, port, f"{place}/index", {})


def serve_peer(place: str, port: int) -> None:
    """The peer: what one writes in an afternoon."""
    checkpoint = open_artifact(f"{place}/checkpoint", "checkpoint")
    index = open_artifact(f"{place}/index", "index")
    recommender = Recommender.load(checkpoint, index, filter_seen=True)
    app = FastAPI()

    @app.get("/health/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/recommend")
    def recommend(request: RecommendRequest) -> RecommendResponse:
        [answer] = recommender.recommend([query_of(request, events_of(request) or [])])
        return RecommendResponse.of(answer, checkpoint.digest)

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        serve_peer(sys.argv[2], int(sys.argv[3]))
    else:
        main(tyro.cli(Arguments, description=__doc__))

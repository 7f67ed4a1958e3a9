"""Requests/s of this service on Ray Serve against plain FastAPI and uvicorn with the same engine.

    python -m benchmarks.serve_vs_fastapi --output outputs/demo

Takes the checkpoint and the index that `make demo` leaves. One replica on one thread; the peer is
one process that answers each request in FastAPI's thread pool. Both parse and answer the same
bodies; ours also batches, times, counts and refuses strangers' hosts. Its cache of answers is off.
Ray Serve runs with HAProxy and its throughput flags (`--plain` without them). Load comes from a
third process on the same cores. The ratio is at 64 clients; `detail` has the others.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
import uvicorn
import yaml
from fastapi import FastAPI

from benchmarks.serving_load import Load, run_load
from recsys.artifact import open_artifact
from recsys.engine.recommender import Recommender
from recsys.serving.api.requests import RecommendRequest
from recsys.serving.api.responses import RecommendResponse
from recsys.serving.queries import events_of, query_of

CLIENTS = (1, 16, 64)
READY_S = 120
FAST = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}


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
    peer = [sys.executable, "-m", "benchmarks.serve_vs_fastapi", "peer", place]
    ours = [str(Path(sys.executable).parent / "serve"), "run"]
    found = {
        "fastapi": _measure(peer, place, arguments.seconds, {}),
        "serve": _measure(ours, place, arguments.seconds, {} if arguments.plain else FAST),
    }
    rates = {name: [load.requests_per_second for load in loads] for name, loads in found.items()}
    ratios = [ours / peer for ours, peer in zip(rates["serve"], rates["fastapi"], strict=True)]
    result = {
        "benchmark": "serve_vs_fastapi",
        "peer": "FastAPI and uvicorn with the same engine",
        "ratio": round(ratios[-1], 3),
        "target": 1.5,
        "higher_is_better": True,
        "detail": {
            "ratio_by_clients": {c: round(r, 3) for c, r in zip(CLIENTS, ratios, strict=True)},
            **{
                n: {c: asdict(one) for c, one in zip(CLIENTS, loads, strict=True)}
                for n, loads in found.items()
            },
        },
    }
    print(json.dumps(result))


def _measure(command: list[str], place: str, seconds: float, flags: dict[str, str]) -> list[Load]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    config = _serve_config(place, port)
    asked = [*command, str(port)] if "peer" in command else [*command, config]
    environment = os.environ | flags | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(asked, env=environment, stdout=log, stderr=log)
        try:
            _wait(f"{url}/health/ready", server)
            index = f"{place}/index"
            return [
                run_load(f"{url}/v1/recommend", index, clients, seconds, server.pid)
                for clients in CLIENTS
            ]
        finally:
            server.terminate()
            server.wait(60)


def _serve_config(place: str, port: int) -> str:
    config = yaml.safe_load(Path("serve_configs/toy.yaml").read_text())
    config["http_options"]["port"] = port
    [application] = config["applications"]
    application["args"] |= {
        "checkpoint": f"{place}/checkpoint",
        "index": f"{place}/index",
        "cache_size": 0,
        "search": False,
    }
    application["args"]["security"]["limits"] = {"max_in_progress": 256}
    application["args"]["security"]["rates"] = {"per_key_s": 100_000.0}
    application["deployments"][0] |= {"max_ongoing_requests": 256, "max_queued_requests": 1_024}
    path = Path(tempfile.mkdtemp()) / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def _wait(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"{url} was not ready within {READY_S} s")


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

"""Requests/s with production's Serve settings against Ray Serve's defaults.

    python -m benchmarks.serve_vs_defaults --output outputs/demo

Takes the checkpoint and the index that `make demo` leaves. Both are the same application in one
replica on one thread, its caches off. Ours has the batches and the limits of
serve_configs/production.yaml, HAProxy and the throughput flags; the peer answers one request in a
forward pass, with Ray's own proxy and defaults (5 requests at a time in a replica). Load comes from
a third process on the same cores. The ratio is at 64 clients; `detail` has the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
import yaml

from benchmarks.serving_process import CLIENTS, FAST, by_clients, ratios, ray_serve

BATCHES = ("max_batch_size", "max_batch_events", "batch_wait_timeout_s")
LIMITS = ("max_ongoing_requests", "max_queued_requests", "backpressure_config")
"""What production.yaml sets for speed; replicas, their cores and stores are a cluster's."""
ALONE = {"max_batch_size": 1, "batch_wait_timeout_s": 0.0}


@dataclass(frozen=True)
class Arguments:
    """What is served."""

    output: str = "outputs/demo"
    """Directory with `checkpoint` and `index`."""
    seconds: float = 8.0
    """Seconds of load for each number of clients."""


def main(arguments: Arguments) -> None:
    """Run both services in turns and print the result as one JSON object."""
    place = str(Path(arguments.output).absolute())
    batches, limits = production()
    with ray_serve(place, {}, ALONE, {}) as server:
        theirs = [server.load(clients, arguments.seconds) for clients in CLIENTS]
    with ray_serve(place, FAST, batches, limits) as server:
        ours = [server.load(clients, arguments.seconds) for clients in CLIENTS]
    found = ratios(ours, theirs)
    result = {
        "benchmark": "serve_vs_defaults",
        "peer": "the same application with Ray Serve's defaults and without batches",
        "ratio": found[CLIENTS[-1]],
        "target": 3.0,
        "higher_is_better": True,
        "detail": {
            "ratio_by_clients": found,
            "settings": {**batches, **limits},
            "defaults": by_clients(theirs),
            "production": by_clients(ours),
        },
    }
    print(json.dumps(result))


def production() -> tuple[dict[str, Any], dict[str, Any]]:
    """Production's arguments of the application and options of its deployment, as far as they
    decide how fast one replica is."""
    config = yaml.safe_load(Path("serve_configs/production.yaml").read_text())
    [application] = config["applications"]
    [deployment] = application["deployments"]
    return {n: application["args"][n] for n in BATCHES}, {n: deployment[n] for n in LIMITS}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

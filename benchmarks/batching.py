"""Requests/s with batches against one request at a time, at equal p99.

    python -m benchmarks.batching --output outputs/demo

The same service on Ray Serve with HAProxy, one replica on one thread, its caches off; the peer
answers one request in a forward pass. For each of the two the largest number of clients is searched
whose p99 stays under `--limit-ms`. The ratio is of the requests/s of these; `detail` has all that
were tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks.serving_load import Load
from benchmarks.serving_process import FAST, ROOMY, ray_serve

FIRST, MOST = 8, 256
"""Clients that are tried first, and at most: a replica takes no more at a time."""
FINENESS = 4
"""The search ends where the step is a quarter of the clients: the load is no steadier than that."""
ALONE = {"max_batch_size": 1, "batch_wait_timeout_s": 0.0}


@dataclass(frozen=True)
class Arguments:
    """What is served, and how fast it must answer."""

    output: str = "outputs/demo"
    """Directory with `checkpoint` and `index`."""
    seconds: float = 4.0
    """Seconds of load for each number of clients that is tried."""
    limit_ms: float = 100.0
    """The largest p99 of both."""


def main(arguments: Arguments) -> None:
    """Search the load that each stands, and print the result as one JSON object."""
    place = str(Path(arguments.output).absolute())
    tried: dict[str, dict[int, Load]] = {}
    for name, args in {"alone": ALONE, "batched": {}}.items():
        with ray_serve(place, FAST, args, ROOMY) as server:
            tried[name] = tries_under(
                arguments.limit_ms, lambda clients, s=server: s.load(clients, arguments.seconds)
            )
    best = {name: _largest(loads, arguments.limit_ms) for name, loads in tried.items()}
    rates = {name: tried[name][clients].requests_per_second for name, clients in best.items()}
    result = {
        "benchmark": "batching",
        "peer": "the same service, one request in a forward pass",
        "ratio": round(rates["batched"] / rates["alone"], 3),
        "target": 2.0,
        "higher_is_better": True,
        "detail": {
            "limit_ms": arguments.limit_ms,
            "clients": best,
            "requests_per_second": rates,
            "tried": {
                name: {clients: asdict(loads[clients]) for clients in sorted(loads)}
                for name, loads in tried.items()
            },
        },
    }
    print(json.dumps(result))


def tries_under(limit_ms: float, seen: Callable[[int], Load]) -> dict[int, Load]:
    """Loads by number of clients, tried on the way to the largest number within the limit.

    Doubled until the p99 is over the limit, then halved between: more clients wait longer.

    Raises:
        ValueError: a single client waits longer than that.
    """
    tried: dict[int, Load] = {}

    def fits(clients: int) -> bool:
        tried[clients] = seen(clients)
        return tried[clients].p99_ms <= limit_ms

    low, high = 0, FIRST
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    while high <= MOST and high - low > max(1, low // FINENESS):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if not low:
        raise ValueError(f"p99 of one client is {tried[1].p99_ms} ms: allow more by --limit-ms")
    return tried


def _largest(tried: dict[int, Load], limit_ms: float) -> int:
    """The most clients whose p99 is within the limit."""
    return max(clients for clients, load in tried.items() if load.p99_ms <= limit_ms)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

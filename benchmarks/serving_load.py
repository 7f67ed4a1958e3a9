"""Load for the serving benchmarks: many clients that each wait for an answer before they ask again.

A process of its own: `python -m benchmarks.serving_load URL INDEX CLIENTS SECONDS` prints one line
of JSON. Histories are random items of the index, 1 to 20 of them, by a fixed seed. With `listed`
behind it a body is a list of one request, as servers take it whose handlers are called with many;
with `patient` a client that is told when to come again comes then, and not at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Literal

import aiohttp
import numpy as np
import psutil

from recsys.artifact import open_artifact

BODIES = 512
WARM_UP_S = 1.0
TOO_MANY = 429


@dataclass(frozen=True)
class Load:
    """What the clients of one run saw."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_ms_per_request: float = 0.0


Form = Literal["plain", "listed", "patient"]


def run_load(
    url: str, index: str, clients: int, seconds: float, server: int, form: Form = "plain"
) -> Load:
    """Load from a process of its own, and the CPU time that the server and its children took."""
    command = [sys.executable, "-m", "benchmarks.serving_load"]
    before = _cpu_seconds(server)
    done = subprocess.run(
        [*command, url, index, str(clients), str(seconds), form],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    used = _cpu_seconds(server) - before
    seen = json.loads(done.stdout.splitlines()[-1])
    answered = seen["requests_per_second"] * (seconds + WARM_UP_S)
    return Load(**seen | {"cpu_ms_per_request": round(1e3 * used / max(1, answered), 2)})


def _cpu_seconds(server: int) -> float:
    """User and system time of a process and all below it that live now."""
    root = psutil.Process(server)
    times = [p.cpu_times() for p in (root, *root.children(recursive=True)) if p.is_running()]
    return sum(t.user + t.system for t in times)


def bodies(index: str, listed: bool = False) -> list[bytes]:
    """Requests to cycle through."""
    ids = open_artifact(index, "index").read_table("items.parquet")["item_id"].to_pylist()
    chosen = random.Random(0)
    histories = [chosen.choices(ids, k=chosen.randint(1, 20)) for _ in range(BODIES)]
    requests = [{"history": history, "top_k": 10} for history in histories]
    return [json.dumps([one] if listed else one).encode() for one in requests]


async def _ask(
    url: str, asked: list[bytes], clients: int, seconds: float, patient: bool = False
) -> Load:
    took: list[float] = []
    failed = 0
    chosen = random.Random(0)
    headers = {"Content-Type": "application/json"}
    started = time.perf_counter()

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal failed
        place = number * 7
        while (now := time.perf_counter()) < started + WARM_UP_S + seconds:
            place += 1
            async with session.post(url, data=asked[place % BODIES], headers=headers) as response:
                await response.read()
            if now > started + WARM_UP_S:
                failed += response.status != 200
                took.append(time.perf_counter() - now)
            if patient and response.status == TOO_MANY:
                # Up to twice as long, or all would come back together.
                await asyncio.sleep(int(response.headers["Retry-After"]) * (1 + chosen.random()))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session, number) for number in range(clients)))
    p50, p99 = np.percentile(took, [50, 99])
    rate = len(took) / seconds
    return Load(round(rate, 1), round(1e3 * p50, 2), round(1e3 * p99, 2), failed)


if __name__ == "__main__":
    url, index, clients, seconds, form = sys.argv[1:]
    asked = bodies(index, listed=form == "listed")
    load = asyncio.run(_ask(url, asked, int(clients), float(seconds), form == "patient"))
    seen = asdict(load)
    del seen["cpu_ms_per_request"]
    print(json.dumps(seen))

"""Requests/s of this service on Ray Serve against the same engine behind BentoML.

    python -m benchmarks.serve_vs_bentoml --output outputs/demo --peer-env outputs/bentoml

Takes the checkpoint and the index that `make demo` leaves. Both have one replica on one thread,
batches of at most 32 and no caches; before each load both must answer the same bodies with the same
items. BentoML batches adaptively (`bentoml_peer.py`); ours also refuses strangers' hosts, and
stands behind HAProxy. BentoML runs in an environment of its own over this one's packages, which the
first run makes in `--peer-env`. Load comes from a third process on the same cores. The ratio is at
64 clients; `detail` has the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.serving_load import bodies
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

BENTOML = "bentoml==1.4.40"
BATCH_SIZE = 32
COMPARED, CLOSE = 20, 1e-4
"""Bodies whose answers are compared, and how far scores may be apart."""


@dataclass(frozen=True)
class Arguments:
    """What is served."""

    peer_env: Path
    """Folder of BentoML's own environment."""
    output: str = "outputs/demo"
    """Directory with `checkpoint` and `index`."""
    seconds: float = 8.0
    """Seconds of load for each number of clients."""


def main(arguments: Arguments) -> None:
    """Run both servers in turns and print the result as one JSON object."""
    place = str(Path(arguments.output).absolute())
    python = _peer_python(arguments.peer_env.absolute())
    with _bentoml(python, place) as server:
        answers = _answers(server)
        theirs = [server.load(clients, arguments.seconds) for clients in CLIENTS]
    with ray_serve(place, FAST, {"max_batch_size": BATCH_SIZE}, ROOMY) as server:
        check_same(_answers(server), answers)
        ours = [server.load(clients, arguments.seconds) for clients in CLIENTS]
    found = ratios(ours, theirs)
    result = {
        "benchmark": "serve_vs_bentoml",
        "peer": f"the same engine behind {BENTOML} with adaptive batches",
        "ratio": found[CLIENTS[-1]],
        "target": 1.0,
        "higher_is_better": True,
        "detail": {
            "ratio_by_clients": found,
            "bentoml": by_clients(theirs),
            "serve": by_clients(ours),
        },
    }
    print(json.dumps(result))


def _peer_python(folder: Path) -> Path:
    """An interpreter that sees this environment's packages behind BentoML and what it needs."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", BENTOML], check=True)
    return python


def _bentoml(python: Path, place: str) -> AbstractContextManager[Server]:
    port = free_port()
    here = Path(__file__).parent
    serve = ["serve", "benchmarks.bentoml_peer:Peer", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "PYTHONPATH": str(here.parent),
        "PLACE": place,
        "BATCH_SIZE": str(BATCH_SIZE),
        "BENTOML_DO_NOT_TRACK": "true",
    }
    command = [str(python), "-m", "bentoml", *serve, "--working-dir", str(here.parent)]
    return running(command, port, f"{place}/index", environment, ready="/readyz", listed=True)


def _answers(server: Server) -> list[list[dict[str, Any]]]:
    """The items that a server answers the first bodies with."""
    found = []
    for body in bodies(server.index, server.listed)[:COMPARED]:
        request = urllib.request.Request(
            server.url, body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        found.append((answer[0] if server.listed else answer)["items"])
    return found


def check_same(ours: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> None:
    """Hold that both answered the same items with the same scores.

    Raises:
        RuntimeError: they did not, so the two did not do the same work.
    """
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        same = [item["item_id"] for item in one] == [item["item_id"] for item in other]
        apart = [abs(a["score"] - b["score"]) for a, b in zip(one, other, strict=False)]
        if not same or max(apart, default=0.0) > CLOSE:
            raise RuntimeError(f"body {number} is answered differently:\n{one}\n{other}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

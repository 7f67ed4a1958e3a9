"""Servers under test: started, waited for, loaded and stopped.

A server is a process of its own on one torch thread; Ray Serve's has a Ray of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.serving_load import Load, run_load
from ray_jobs.local_cluster import LocalCluster, free_port

CLIENTS = (1, 16, 64)
FAST = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
"""Ray Serve's HAProxy and throughput flags."""
NICENESS = {"RAY_worker_niceness": "0"}
"""With Ray's 15 a replica would wait for the clients on its own cores, as no other server does."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
ROOMY = {"max_ongoing_requests": 256, "max_queued_requests": 1_024}
"""A deployment that never refuses the clients of a benchmark."""
MAX_IN_PROGRESS = 256
MOST_FAILED = 0.01
READY_S = 180


@dataclass(frozen=True)
class Server:
    """A running server, and the index whose items it is asked about."""

    url: str
    index: str
    pid: int
    listed: bool = False
    """Whether a body is a list of one request."""

    def load(self, clients: int, seconds: float) -> Load:
        """What so many clients see, each asking again once it is answered.

        Raises:
            RuntimeError: more than one request in a hundred failed, so rates mean nothing.
        """
        form = "listed" if self.listed else "plain"
        seen = run_load(self.url, self.index, clients, seconds, self.pid, form)
        if seen.failed > MOST_FAILED * seen.requests_per_second * seconds:
            raise RuntimeError(f"{seen.failed} requests of {clients} clients failed: {seen}")
        return seen


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    index: str,
    environment: Mapping[str, str],
    ready: str = "/health/ready",
    listed: bool = False,
) -> Iterator[Server]:
    """The server that `command` starts on `port`, from its first ready answer on.

    Raises:
        RuntimeError: it ended or was not ready within `READY_S`; shows the end of its log.
    """
    with tempfile.TemporaryFile() as log:
        whole = {**os.environ, **ONE_THREAD, **environment}
        process = subprocess.Popen(command, env=whole, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            if not _is_ready(url + ready, process):
                log.seek(0)
                tail = log.read()[-2_000:].decode(errors="replace")
                raise RuntimeError(f"{url}{ready} was not ready within {READY_S} s:\n{tail}")
            yield Server(f"{url}/v1/recommend", index, process.pid, listed)
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(url: str, server: subprocess.Popen[bytes] | None = None) -> bool:
    """Once it is; False where the server ended or took longer than `READY_S`."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and (server is None or server.poll() is None):
        try:
            with urllib.request.urlopen(url, timeout=1) as response:
                if response.status == 200:
                    return True
        except OSError:
            time.sleep(0.3)
    return False


@contextmanager
def ray_serve(
    place: str, flags: Mapping[str, str], args: Mapping[str, Any], deployment: Mapping[str, Any]
) -> Iterator[Server]:
    """The recommender of `place` (a `checkpoint` and an `index`) in one replica of Ray Serve.

    No answer and no reading of a history is kept: bodies come again, and each is to be computed.

    Raises:
        RuntimeError: it was not ready within `READY_S`.
    """
    port = free_port()
    known = {"checkpoint": f"{place}/checkpoint", "index": f"{place}/index", **args}
    config = serve_config(port, known, deployment)
    with _environment({**ONE_THREAD, **NICENESS, **flags}), LocalCluster() as cluster:
        _deploy(config, cluster)
        url = f"http://127.0.0.1:{port}"
        if not _is_ready(f"{url}/health/ready"):
            raise RuntimeError(f"Ray Serve was not ready within {READY_S} s: {config}")
        yield Server(f"{url}/v1/recommend", f"{place}/index", cluster.pid)


@contextmanager
def _environment(changed: Mapping[str, str]) -> Iterator[None]:
    """These variables, which all that is started inside inherits."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _deploy(config: Mapping[str, Any], cluster: LocalCluster) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serve.yaml"
        path.write_text(yaml.safe_dump(config))
        serve = str(Path(sys.executable).parent / "serve")
        command = [serve, "deploy", str(path), "--address", cluster.address]
        done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"not deployed:\n{(done.stdout + done.stderr)[-2_000:]}")


def serve_config(
    port: int, args: Mapping[str, Any], deployment: Mapping[str, Any]
) -> dict[str, Any]:
    """toy.yaml with these arguments of the application and options of its deployment."""
    config = yaml.safe_load(Path("serve_configs/toy.yaml").read_text())
    config["http_options"]["port"] = port
    [application] = config["applications"]
    application["args"] |= {"cache_size": 0, "user_states_mb": 0, "search": False, **args}
    application["args"]["security"] |= {
        "limits": {"max_in_progress": MAX_IN_PROGRESS},
        "rates": {"per_key_s": 100_000.0},
    }
    [toy] = application["deployments"]
    kept = {name: toy[name] for name in ("name", "ray_actor_options")}
    application["deployments"] = [{**kept, "num_replicas": 1, **deployment}]
    return config


def by_clients(loads: Sequence[Load]) -> dict[int, dict[str, Any]]:
    """Loads of `CLIENTS`, for a report."""
    return {c: asdict(load) for c, load in zip(CLIENTS, loads, strict=True)}


def ratios(ours: Sequence[Load], theirs: Sequence[Load]) -> dict[int, float]:
    """Requests/s in those of the peer, by number of clients."""
    pairs = zip(CLIENTS, ours, theirs, strict=True)
    return {c: round(a.requests_per_second / b.requests_per_second, 3) for c, a, b in pairs}

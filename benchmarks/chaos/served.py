"""A service of its own to break, on a Ray of its own, by a config like production's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from ray_jobs.local_cluster import LocalCluster, free_port

READY_S = 180
HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
LIMITS = {"limits": {"max_in_progress": 64}, "rates": {"per_key_s": 100_000.0}}
DEPLOYMENT = {
    "num_replicas": 2,
    "max_surge_percent": 100,
    "max_ongoing_requests": 1024,
    "max_queued_requests": 2048,
    "backpressure_config": {"status_code": 429, "retry_after_s": 1},
    "health_check_period_s": 2,
    "health_check_timeout_s": 5,
    "graceful_shutdown_wait_loop_s": 1,
    "graceful_shutdown_timeout_s": 20,
    "ray_actor_options": {"num_cpus": 0.5},
}
"""As production.yaml has it, with a shorter health check; half a core a replica leaves room for
the new ones of an update beside the old."""


@dataclass(frozen=True)
class Served:
    """A running service."""

    url: str
    cluster: LocalCluster
    config: dict[str, Any]

    def processes(self, name: str) -> list[psutil.Process]:
        """Its processes whose command line has `name` in it."""
        found = psutil.Process(self.cluster.pid).children(recursive=True)
        return [process for process in found if name in _title(process)]

    def kill(self, name: str) -> float:
        """`kill -9` one of its processes; returns when (Unix seconds)."""
        process = self.processes(name)[0]
        process.send_signal(signal.SIGKILL)
        return time.time()

    def deploy(self, **args: Any) -> None:
        """`serve deploy`, with these arguments of the application changed."""
        self.config["applications"][0]["args"] |= args
        path = Path(tempfile.mkdtemp()) / "serve.yaml"
        path.write_text(yaml.safe_dump(self.config))
        serve = str(Path(sys.executable).parent / "serve")
        command = [serve, "deploy", str(path), "--address", self.cluster.address]
        subprocess.run(command, env=self.cluster.environment, check=True, capture_output=True)
        shutil.rmtree(path.parent)

    def wait_ready(self) -> None:
        """Until the service takes requests.

        Raises:
            RuntimeError: it did not within `READY_S`.
        """
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health/ready", timeout=1) as response:
                    if response.status == 200:
                        return
            except OSError:
                time.sleep(0.3)
        raise RuntimeError(f"{self.url} was not ready within {READY_S} s")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@contextmanager
def serving(args: dict[str, Any], flags: dict[str, str]) -> Iterator[Served]:
    """A service with these `args` over those of toy.yaml."""
    config = yaml.safe_load(Path("serve_configs/toy.yaml").read_text())
    port = free_port()
    config["http_options"] |= {"port": port, "request_timeout_s": 10}
    [application] = config["applications"]
    for name in ("checkpoint", "index", "store"):
        del application["args"][name]
    application["args"] |= {"cache_size": 0, "search": False} | args
    application["args"]["security"] |= LIMITS
    application["deployments"][0] |= DEPLOYMENT
    os.environ.update(flags | {"OMP_NUM_THREADS": "1"})
    with LocalCluster() as cluster:
        served = Served(f"http://127.0.0.1:{port}", cluster, config)
        served.deploy()
        served.wait_ready()
        yield served
    for name in flags:
        del os.environ[name]

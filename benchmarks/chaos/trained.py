"""A training of its own to break: the command as users run it, watched from outside."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import psutil

from ray_jobs.local_cluster import free_port

LIMIT_S = 180.0
"""Longest wait for any one thing; a run that goes on again takes a tenth of it."""
POLL_S = 0.01
ROWS = "log.jsonl"  # of recsys.training.trackers, which would import Ray too early
AGENTS = {"RAY_AGENT_DISABLE_METRICS_COLLECTION": "1"}
GOES_ON = "going on from step "
PORTS = (
    "dashboard_port",
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)
"""Named beforehand: a raylet that has to be told by its agents gives up on a busy machine."""
WORKER, CONTROLLER = "RayTrainWorker", "TrainController"


@contextmanager
def machines(*cpus: int, **environment: str) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of one logical machine for each number of CPUs, first the head.

    Tokens are asked for, and everything lies in a folder of its own, so that no other Ray of this
    machine is met. There is no dashboard, so that Ray Train's detached cleaners of placement
    groups, which ask it about a controller that died, stay until the cluster ends.
    """
    # Unix sockets live below it, and their paths may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as folder:
        # Ray reads its environment when it is imported: not before this line.
        assert "ray" not in sys.modules or "RAY_AUTH_TOKEN" in os.environ
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.update(environment | {"RAY_TMPDIR": folder, "RAY_DEDUP_LOGS": "0"} | AGENTS)
        cluster = import_module("ray.cluster_utils").Cluster()
        try:
            for number in cpus:
                add_machine(cluster, number)
            yield cluster
        finally:
            cluster.shutdown()
            for left in processes(folder):  # of a machine that never came up, or was lost
                left.kill()
            for name in environment:
                del os.environ[name]


def add_machine(cluster: Any, cpus: int) -> None:
    """One more logical machine, with ports that nobody has."""
    ports = {name: free_port() for name in PORTS}
    cluster.add_node(num_cpus=cpus, include_dashboard=False, no_monitor=True, **ports)


def processes(name: str) -> list[psutil.Process]:
    """Those that descend from this process and have `name` in their command line."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if name in _title(process)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def gone(found: list[psutil.Process]) -> bool:
    """Whether none of these runs."""
    return not any(process.is_running() and _title(process) for process in found)


def until(holds: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> float:
    """Wait for something; returns when it was seen (Unix seconds).

    Raises:
        TimeoutError: it did not come within the limit.
    """
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{limit_s:.0f} s went by, and not: {what}")
        time.sleep(POLL_S)
    return time.time()


class Training:
    """`with Training(cluster.address, output, flags) as run:` what it printed, and its steps.

    `sick` are arguments of `benchmarks.chaos.sick`.
    """

    def __init__(
        self, address: str, output: Path, flags: list[str], sick: tuple[str, ...] = ()
    ) -> None:
        module = ["benchmarks.chaos.sick", *sick] if sick else ["ray_jobs.train"]
        self.output = output
        self.printed: list[tuple[float, str]] = []
        self.steps: list[tuple[float, int]] = []
        self._command = [sys.executable, "-m", *module, "--output", str(output), *flags]
        self._environment = os.environ | {"RAY_ADDRESS": address}
        self._left = threading.Event()

    def __enter__(self) -> Self:
        """Start it."""
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._threads = [threading.Thread(target=work) for work in (self._listen, self._watch)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._left.set()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append((time.time(), line.rstrip()))

    def _watch(self) -> None:
        size = -1
        while not self._left.wait(POLL_S):
            path = log_of(self.output)
            if path is not None and path.stat().st_size != size:
                size = path.stat().st_size
                told, _, _ = path.read_text().rpartition("\n")  # what follows is being written
                if told:
                    last = json.loads(told[told.rfind("\n") + 1 :])
                    self.steps.append((time.time(), int(last["step"])))

    @property
    def step(self) -> int:
        """The last step it has told of; 0 before there is one."""
        return max((step for _, step in self.steps), default=0)

    def until_step(self, step: int) -> None:
        """Wait for a step.

        Raises:
            RuntimeError: it ended before.
        """
        until(lambda: self.step >= step or self.ended, f"step {step}")
        if self.step < step:
            raise RuntimeError(f"training ended at step {self.step}:\n{self.tail()}")

    @property
    def ended(self) -> bool:
        """Whether the command is over."""
        return self.process.poll() is not None

    def until_end(self, limit_s: float = LIMIT_S) -> int:
        """Wait for its end; returns its exit code."""
        until(lambda: self.ended, "the command ends", limit_s)
        return self.process.returncode

    def said(self, text: str) -> float | None:
        """When a line with this text was first printed."""
        return next((when for when, line in list(self.printed) if text in line), None)

    def tail(self, lines: int = 15) -> str:
        """The end of what it printed."""
        return "\n".join(line for _, line in self.printed[-lines:])

    def resumed(self) -> list[tuple[float, int]]:
        """When it went on, and from which step, each time that it did."""
        found = [(when, line) for when, line in list(self.printed) if GOES_ON in line]
        return [(when, int(line.partition(GOES_ON)[2])) for when, line in found]

    def stop(self) -> None:
        """SIGTERM, as a scheduler sends it, and wait until none of its workers is left."""
        workers = processes(WORKER)
        self.process.send_signal(signal.SIGTERM)
        self.until_end()
        until(lambda: gone(workers), "workers end with the command")


def log_of(output: Path) -> Path | None:
    """The growing log of the run under an output, if there is one yet."""
    return next(iter(output.glob(f"checkpoint-run/*/{ROWS}")), None)

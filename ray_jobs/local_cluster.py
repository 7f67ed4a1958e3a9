"""A Ray head of one's own on this machine: token authentication, free ports, and a clean end.

Other Ray processes of the machine are left alone: `ray stop` would end them too.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from ray_jobs.command import LOCAL_CPUS, QUIET

START_SECONDS = 120
STOP_SECONDS = 30
_RAY = [str(Path(sys.executable).parent / "ray"), "--logging-level", "warning"]


class LocalCluster:
    """`with LocalCluster() as cluster: cluster.submit(["python", "-m", "ray_jobs.train", ...])`."""

    def __init__(self, num_cpus: int = LOCAL_CPUS) -> None:
        self.num_cpus = max(num_cpus, os.cpu_count() or 1)
        self.token = secrets.token_hex(32)
        self.dashboard_port = free_port()
        # Unix sockets live below it, and their paths may have 107 bytes at most.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._head: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """Where jobs are submitted."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def pid(self) -> int:
        """The process that all others of this cluster descend from."""
        assert self._head is not None
        return self._head.pid

    @property
    def environment(self) -> dict[str, str]:
        """The environment of everything that talks to this cluster."""
        programs = str(Path(sys.executable).parent)
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        path = {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}
        kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        return kept | auth | path | QUIET | {"RAY_AGENT_DISABLE_METRICS_COLLECTION": "1"}

    def __enter__(self) -> Self:
        """Start the head and wait until it takes jobs.

        Raises:
            RuntimeError: it ended or did not answer in time; says where its log is.
        """
        with (self._folder / "head.log").open("wb") as log:
            self._head = subprocess.Popen(
                [*_RAY, "start", "--head", "--block", *self._flags()],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def _flags(self) -> list[str]:
        ports = ("port", "ray-client-server-port", "dashboard-agent-listen-port")
        return [
            *(f"--{name}={free_port()}" for name in ports),
            f"--dashboard-port={self.dashboard_port}",
            "--dashboard-host=127.0.0.1",
            "--node-ip-address=127.0.0.1",
            f"--num-cpus={self.num_cpus}",
            f"--temp-dir={self._folder}",
            "--disable-usage-stats",
        ]

    def _wait(self) -> None:
        assert self._head is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._head.poll() is not None:
                break
            if self.answers(f"{self.address}/api/jobs/"):
                return
            time.sleep(0.5)
        raise RuntimeError(f"Ray did not start:\n{(self._folder / 'head.log').read_text()[-2000:]}")

    def answers(self, url: str) -> bool:
        """Whether a GET with the token is answered with 200."""
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def submit(self, entrypoint: list[str], name: str, wait: bool = True) -> str:
        """`ray job submit` from the repository's root, as submission `name`.

        Returns the job's standard output, which is also shown while it comes.

        Raises:
            RuntimeError: the job failed.
        """
        flags = ["--address", self.address, "--working-dir", ".", "--submission-id", name]
        flags += [] if wait else ["--no-wait"]
        command = [*_RAY, "job", "submit", *flags, "--", *entrypoint]
        deadline = time.monotonic() + START_SECONDS
        while True:
            code, printed = self._run(command)
            if code == 0:
                return printed
            # A head that takes jobs may still lack the agent that starts them: then none was made.
            if self.answers(f"{self.address}/api/jobs/{name}") or time.monotonic() > deadline:
                raise RuntimeError(f"job failed: {' '.join(entrypoint)}")
            time.sleep(1)

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Exit code and standard output, which is also shown while it comes."""
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        return process.wait(), "".join(lines)

    def logs(self, name: str) -> str:
        """What the job submitted as `name` has printed so far."""
        command = [*_RAY, "job", "logs", "--address", self.address, name]
        found = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return found.stdout

    def __exit__(self, *_: object) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        """End the head; Ray's own `--block` ends every process it started."""
        assert self._head is not None
        self._head.send_signal(signal.SIGTERM)
        try:
            self._head.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._head.pid, signal.SIGKILL)
            self._head.wait()


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

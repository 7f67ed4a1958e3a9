"""A dashboard that refuses, is of another release, or is not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from ray_jobs.ray_answers import check_dashboard, check_ray


@contextmanager
def dashboard(release: str, token: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == f"Bearer {token}"
            body = json.dumps({"ray_version": release}).encode() if known else b""
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests' output is no place for an access log."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_dashboard_lets_in_who_has_its_token():
    with dashboard(version("ray"), "right") as address:
        assert check_dashboard(address, "right").verdict == "ok"
        refused = check_dashboard(address, "wrong")
        environ = {"RAY_ADDRESS": address, "RAY_AUTH_TOKEN": "right"}
        assert check_ray(environ).verdict == "ok"
    assert (refused.verdict, refused.found) == ("fault", f"{address} answers 401")


def test_another_release_of_ray_is_a_fault():
    with dashboard("2.40.0", "right") as address:
        found = check_dashboard(address, "right")
    assert found.verdict == "fault"
    assert "2.40.0" in found.found


def test_a_dashboard_that_is_not_there_is_a_fault():
    assert check_dashboard("http://127.0.0.1:1", None).verdict == "fault"


def test_a_cluster_that_runs_no_task_in_time_is_a_fault():
    found = check_ray({"RAY_ADDRESS": "127.0.0.1:1"}, start_s=0.1)
    assert found.verdict == "fault"
    assert "no task within 0.1 s" in found.found

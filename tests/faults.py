"""An HTTP proxy in front of an S3 server that breaks a seeded part of the requests on purpose."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from moto.server import ThreadedMotoServer

HOP_HEADERS = {"connection", "content-length", "date", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Fault:
    """What happens to one request in place of, or on top of, the server's answer."""

    status: int = 0
    """Answer this status and S3 error code; the server never sees the request."""
    code: str = ""
    stall_s: float = 0.0
    """Silence before the server's answer."""
    keep_bytes: int | None = None
    """Send this many bytes of the body, then end it: by a reset, or as if it were whole."""
    reset: bool = True


SLOW_DOWN = Fault(503, "SlowDown")
INTERNAL_ERROR = Fault(500, "InternalError")
EXPIRED_TOKEN = Fault(403, "ExpiredToken")
ACCESS_DENIED = Fault(403, "AccessDenied")


@dataclass(frozen=True)
class Request:
    """One request: its method, its path with the query, and how often it was seen before."""

    method: str
    path: str
    number: int


Plan = Callable[[Request], Fault | None]


def always(fault: Fault, method: str = "", path: str = "") -> Plan:
    """Break every request of this method whose path has this part."""
    return lambda request: fault if method in request.method and path in request.path else None


def first(fault: Fault, method: str = "", path: str = "", times: int = 1) -> Plan:
    """Break such a request the first `times` times it is made."""
    every = always(fault, method, path)
    return lambda request: every(request) if request.number < times else None


def share(faults: list[Fault], part: float, seed: int) -> Plan:
    """Break this part of all requests, whatever the order in which threads make them."""

    def plan(request: Request) -> Fault | None:
        dice = random.Random(f"{seed} {request.method} {request.path} {request.number}")
        return dice.choice(faults) if dice.random() < part else None

    return plan


@dataclass
class FaultProxy:
    """A running proxy; `plan` may be changed at any time."""

    url: str
    plan: Plan | None = None
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of(self, method: str, path: str) -> Fault | None:
        """Count the request and look up its fault."""
        with self.lock:
            request = Request(method, path, self.seen[method, path])
            self.seen[method, path] += 1
            fault = self.plan(request) if self.plan else None
            self.broken += fault is not None
        return fault

    def begin(self, plan: Plan | None) -> None:
        """Follow this plan and count from zero."""
        with self.lock:
            self.plan, self.broken = plan, 0
            self.seen.clear()


@contextmanager
def faulty_s3(bucket: str, port: int = 0) -> Iterator[FaultProxy]:
    """An S3 server with one bucket behind a proxy, which breaks nothing before it has a plan."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        with fault_proxy(server.get_host_and_port()[1], port) as proxy:
            boto3.client("s3", endpoint_url=proxy.url).create_bucket(Bucket=bucket)
            yield proxy
    finally:
        server.stop()


@contextmanager
def fault_proxy(server_port: int, port: int = 0) -> Iterator[FaultProxy]:
    """A proxy at `port` (0 is any free one) in front of the server at `server_port`."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_port}")
    server.proxy, server.upstream_port = proxy, server_port  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self._read_body()
        fault = self.server.proxy.fault_of(self.command, self.path) or Fault()  # type: ignore
        time.sleep(fault.stall_s)
        try:
            if fault.status:
                self._refuse(fault)
            else:
                self._forward(body, fault)
        except OSError:  # the client has given up on this request, as it should
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Tests' output is no place for an access log."""

    def _read_body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._read_chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _read_chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline().split(b";")[0], 16))
        self.rfile.readline()
        return chunk

    def _refuse(self, fault: Fault) -> None:
        body = f"<Error><Code>{fault.code}</Code><Message>made to fail</Message></Error>".encode()
        self.send_response(fault.status)
        self._finish([("Content-Type", "application/xml")], len(body), body)

    def _forward(self, body: bytes, fault: Fault) -> None:
        port = self.server.upstream_port  # type: ignore[attr-defined]
        server = http.client.HTTPConnection("127.0.0.1", port)
        sent = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
        server.request(self.command, self.path, body, sent | {"Content-Length": str(len(body))})
        answer = server.getresponse()
        content = answer.read()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP_HEADERS]
        length = int(answer.headers.get("Content-Length", len(content)))
        server.close()
        self.send_response(answer.status)
        if fault.keep_bytes is None:
            self._finish(headers, length, content)
        elif fault.reset:
            self._finish(headers, length, content[: fault.keep_bytes])
            self._reset()
        else:
            self._finish(headers, min(length, fault.keep_bytes), content[: fault.keep_bytes])

    def _finish(self, headers: list[tuple[str, str]], length: int, body: bytes) -> None:
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        """Close with a RST: what was not read by then is lost, as when a server dies."""
        linger_now = struct.pack("ii", 1, 0)
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_now)
        self.close_connection = True

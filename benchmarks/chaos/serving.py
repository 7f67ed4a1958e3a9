"""Faults of serving, F17 to F23, under traffic.

    python -m benchmarks.chaos.serving --output outputs/demo [--haproxy]

Takes what `make demo` leaves. Two replicas follow a registry; 40 requests a second carry their
histories, and every answer is compared with what its version answers offline.
"""

from __future__ import annotations

import gzip
import http.client
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import httpx
import torch
import tyro

from benchmarks.chaos.report import Outcome, run_all
from benchmarks.chaos.served import HAPROXY, Served, serving
from benchmarks.chaos.traffic import Judge, Seen, Traffic, p99_ms, rate, signs
from benchmarks.serving_load import Form, run_load
from ray_jobs import promote
from recsys.artifact import ArtifactWriter, open_artifact
from recsys.index.item_index import (
    VECTORS,
    Precision,
    load_index,
    make_index,
    popularity_order,
    save_index,
)
from recsys.registry import Registry

RATE, BEFORE_S, AFTER_S, UNTIL_S = 40.0, 3.0, 12.0, 120.0
POLL_S, FLIP_S = 0.5, 4.0
MAX_FAILED = 8
"""Requests in flight when a process is killed, at most: 40 a second of 100 ms each, twice over."""
PROXY_BACK_S = 40.0
"""A proxy that is gone is noticed by its health check, of 10 s and three times."""
OVERLOAD, PEAK_CLIENTS, LOAD_S = 10, 32, 8.0
IDLE, SLOW = 1_000, 50


@dataclass(frozen=True)
class Arguments:
    """What is served."""

    output: str = "outputs/demo"
    """Directory with `checkpoint` and `index`."""
    haproxy: bool = False
    """With Ray Serve's HAProxy and throughput flags."""
    only: tuple[str, ...] = ()
    """Names of faults, such as F17; all by default."""


@dataclass(frozen=True)
class Scene:
    """A service, who judges its answers, and the registry it follows."""

    served: Served
    judge: Judge
    registry: str
    checkpoint: str
    indexes: tuple[str, str]

    def under_traffic(
        self,
        inject: Callable[[], float],
        after_s: float = AFTER_S,
        until: Callable[[], bool] = lambda: True,
    ) -> _Watched:
        """What traffic saw before and after `inject`, which says when it did; for `after_s` and
        then until something holds, for `UNTIL_S` at most."""
        with Traffic(f"{self.served.url}/v1/recommend", self.judge, RATE) as traffic:
            time.sleep(BEFORE_S)
            injected = inject()
            time.sleep(after_s)
            while not until() and time.time() < injected + UNTIL_S:
                time.sleep(0.5)
        return _Watched(traffic.seen, injected, self.judge.wrong(traffic.seen))


@dataclass(frozen=True)
class _Watched:
    seen: list[Seen]
    injected: float
    wrong: int

    def outcome(self, most_failed: int, said: str, fits: bool = True, **detail: object) -> Outcome:
        """Passed where no answer was wrong and no more requests failed."""
        failed = sum(not one.ok for one in self.seen)
        text = f"{failed} of {len(self.seen)} requests failed; {said}"
        passed = fits and self.wrong == 0 and failed <= most_failed
        before = [one for one in self.seen if one.sent < self.injected]
        detail |= {"failed": failed, "p99_ms": (p99_ms(before), p99_ms(self.seen))}
        return Outcome(*signs(self.seen, self.injected), self.wrong, passed, text, detail)


def main(arguments: Arguments) -> None:
    """Inject every fault and print what it did."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        place = str(Path(arguments.output).absolute())
        checkpoint, first = f"{place}/checkpoint", f"{place}/index"
        second = _other_index(first, f"{folder}/index", "bf16")
        registry = f"{folder}/registry"
        promote.run(promote.Arguments(registry, checkpoint, first, wait_s=0))
        flags = HAPROXY if arguments.haproxy else {}
        args = {"registry": registry, "registry_poll_s": POLL_S}
        served = stack.enter_context(serving(args, flags))
        judge = Judge(checkpoint, [first, second])
        scene = Scene(served, judge, registry, checkpoint, (first, second))
        proxy = "haproxy" if arguments.haproxy else "ProxyActor"
        faults = {
            "F17 replica killed": partial(killed, scene, "ServeReplica"),
            "F18 controller killed": partial(killed, scene, "ServeController"),
            "F18 proxy killed": partial(proxy_killed, scene, proxy),
            "F19 rolling update": partial(updated, scene),
            "F20 good model": partial(promoted, scene),
            "F20 damaged model": partial(damaged, scene, f"{folder}/damaged"),
            "F21 overload": partial(overloaded, scene, "patient"),
            "F21 overload, at once": partial(overloaded, scene, "plain"),
            "F22 slow and idle clients": partial(slow_clients, scene),
            "F23 hostile bodies": partial(hostile, scene),
        }
        wanted = [n for n in faults if not arguments.only or n.split()[0] in arguments.only]
        run_all(((name, faults[name]) for name in wanted), harm="wrong")


def _other_index(source: str, target: str, precision: Precision) -> str:
    """An index of the same items and checkpoint with vectors of another kind: another version."""
    index = open_artifact(source, "index")
    vectors = load_index(index.read_bytes(VECTORS))
    writer = ArtifactWriter(target, "index")
    for name in index.names():
        if name != VECTORS:
            writer.add_bytes(name, index.read_bytes(name))
    items = index.read_table("items.parquet")
    counts, removed = (torch.tensor(items[n].to_pylist()) for n in ("train_count", "removed"))
    whole = vectors.vectors_of(torch.arange(len(items)))
    made = make_index(whole, precision, popularity_order(counts), removed)
    writer.add_bytes(VECTORS, save_index(made))
    return writer.publish(index.manifest.config, index.manifest.parents, index.manifest.facts).uri


def killed(scene: Scene, name: str) -> Outcome:
    """`kill -9` a process of the service."""
    before = len(scene.served.processes(name))
    watched = scene.under_traffic(lambda: scene.served.kill(name))
    back = len(scene.served.processes(name))
    return watched.outcome(MAX_FAILED, f"{back} of {before} are back", fits=back >= before)


def proxy_killed(scene: Scene, name: str) -> Outcome:
    """`kill -9` the only proxy of the only node: nobody is answered until there is another."""
    watched = scene.under_traffic(lambda: scene.served.kill(name), PROXY_BACK_S + 10)
    end = watched.injected + PROXY_BACK_S
    late = sum(not one.ok for one in watched.seen if one.sent > end)
    said = f"{late} of them after {PROXY_BACK_S:.0f} s"
    return watched.outcome(len(watched.seen), said, fits=not late)


def updated(scene: Scene) -> Outcome:
    """A deployment with another argument: every replica is replaced."""
    old = {process.pid for process in scene.served.processes("ServeReplica")}

    def deploy() -> float:
        now = time.time()
        scene.served.deploy(max_top_k=501)
        return now

    def left() -> set[int]:
        return old & {process.pid for process in scene.served.processes("ServeReplica")}

    watched = scene.under_traffic(deploy, until=lambda: not left())
    said = f"{len(left())} of {len(old)} old replicas are left"
    return watched.outcome(0, said, fits=not left())


def promoted(scene: Scene) -> Outcome:
    """Another version is promoted, and then the first one again."""

    def promote_other() -> float:
        now = time.time()
        arguments = promote.Arguments(
            scene.registry, scene.checkpoint, scene.indexes[1], wait_s=FLIP_S
        )
        promote.run(arguments)
        return now

    watched = scene.under_traffic(promote_other)
    shown = httpx.get(f"{scene.served.url}/v1/model").json()
    Registry(scene.registry).back("live", time.time(), FLIP_S)
    wanted = open_artifact(scene.indexes[1], "index").digest
    return watched.outcome(0, "the new version answers", fits=wanted in str(shown))


def damaged(scene: Scene, place: str) -> Outcome:
    """A version with a byte of its vectors changed, put into the registry behind `promote`."""
    time.sleep(FLIP_S + 2 * POLL_S)
    third = Path(_other_index(scene.indexes[0], place, "int8"))
    opened = open_artifact(str(third), "index")
    registry = Registry(scene.registry)
    checkpoint = open_artifact(scene.checkpoint, "checkpoint")
    golden = registry.versions()[0].golden
    version = registry.register(checkpoint, opened, golden[:1], time.time(), {"damaged": 1.0})
    content = bytearray((third / VECTORS).read_bytes())
    content[-100] ^= 1
    (third / VECTORS).write_bytes(content)

    def point() -> float:
        now = time.time()
        registry.point("live", version.name, now, wait_s=1)
        return now

    def refused() -> dict[str, str]:
        return httpx.get(f"{scene.served.url}/v1/model").json()["refused"]

    watched = scene.under_traffic(point, until=lambda: bool(refused()))
    shown = str(refused())
    registry.back("live", time.time())
    return watched.outcome(0, f"refused: {shown}", fits=VECTORS in shown)


def overloaded(scene: Scene, form: Form) -> Outcome:
    """Ten times the clients that the service does best with; they come again when they are told
    to (`patient`), or at once."""
    url, index, pid = f"{scene.served.url}/v1/recommend", scene.indexes[0], scene.served.cluster.pid
    peak = run_load(url, index, PEAK_CLIENTS, LOAD_S, pid)
    load = run_load(url, index, OVERLOAD * PEAK_CLIENTS, LOAD_S, pid, form)
    ended = time.time()
    goodput = load.requests_per_second - load.failed / LOAD_S
    watched = scene.under_traffic(time.time, after_s=10)
    after = rate(watched.seen, ended + 5, ended + 10)
    failed_after = [one for one in watched.seen if not one.ok and one.sent > ended + 10]
    share = goodput / peak.requests_per_second
    said = (
        f"{goodput:.0f} good answers/s of {peak.requests_per_second:.0f} at the peak ({share:.2f}),"
        f" {load.failed / LOAD_S:.0f} refused; {after:.0f} of {RATE:.0f}/s after it"
    )
    passed = share >= 0.8 and not failed_after and watched.wrong == 0
    _, last = signs(watched.seen, ended)  # None: nobody failed any more once it was over
    detail = {"goodput_share": share, "refused_s": load.failed / LOAD_S, "p99_ms": load.p99_ms}
    return Outcome(None, last, watched.wrong, passed, said, detail)


def slow_clients(scene: Scene) -> Outcome:
    """Idle connections, headers that never end, and clients that leave before the answer."""
    where = urlparse(scene.served.url)
    quiet = scene.under_traffic(time.time, after_s=5)
    with ExitStack() as stack:

        def connect() -> float:
            now = time.time()
            for number in range(IDLE + SLOW):
                one = stack.enter_context(socket.create_connection((where.hostname, where.port)))
                if number >= IDLE:
                    one.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nX-A: ")
            for _ in range(SLOW):
                _leave(where.hostname or "", where.port or 0, scene.judge.histories[0])
            return now

        watched = scene.under_traffic(connect)
    times = p99_ms(quiet.seen), p99_ms([s for s in watched.seen if s.sent > watched.injected])
    said = f"p99 {times[1]:.0f} ms beside {IDLE} idle and {SLOW} slow ones, {times[0]:.0f} without"
    return watched.outcome(0, said, fits=times[1] <= 2 * max(times[0], 20.0))


def _leave(host: str, port: int, history: list[str]) -> None:
    with socket.create_connection((host, port)) as one:
        body = httpx.Request("POST", "http://x", json={"history": history}).content
        head = f"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        one.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)


def hostile(scene: Scene) -> Outcome:
    """Bodies that mean harm: each is refused with a 4xx, and the service goes on."""
    found: dict[str, int] = {}

    def send() -> float:
        now = time.time()
        for name, (content, headers) in _BODIES.items():
            found[name] = _post(scene.served.url, content, headers)
        return now

    watched = scene.under_traffic(send, after_s=3)
    bad = {name: status for name, status in found.items() if not 400 <= status < 500}
    return watched.outcome(0, f"not refused: {bad or 'none'}", fits=not bad, statuses=found)


def _post(url: str, content: bytes, headers: dict[str, str]) -> int:
    """The status; 499 where the service hung up before it had read all."""
    where = urlparse(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    try:
        connection.request("POST", "/v1/recommend", content, _JSON | headers)
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 499
    finally:
        connection.close()


_JSON = {"Content-Type": "application/json"}
_BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "not JSON": (b'{"history": [', {}),
    "10,000 brackets": (b'{"history": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", {}),
    "100 MB": (b'{"history": ["' + b"a" * 100_000_000 + b'"]}', {}),
    "gzip bomb": (gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"}),
    "NaN": (b'{"history": [], "diversity": NaN}', {}),
    "a number of 5,000 digits": (b'{"history": [], "top_k": ' + b"9" * 5_000 + b"}", {}),
    "not UTF-8": (b'{"history": ["\xff\xfe"]}', {}),
    "wrong types": (b'{"history": {"a": 1}, "top_k": "x"}', {}),
    "100,000 events": (b'{"history": [' + b'"a",' * 99_999 + b'"a"]}', {}),
    "a null": (b"null", {}),
}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

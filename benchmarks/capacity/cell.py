"""A cell of the serving tier, event by event: batches, queues, limits, autoscaling, a lost node.

A cell is one Ray cluster behind the load balancer. A request goes to the emptier of two replicas
that are picked at random, as Ray Serve's router does; where both are full it goes to any that is
not, else it waits in the cell, and beyond `max_queued` it is refused. A replica takes what waits,
at most `max_batch`, or waits `wait_ms` for more. Times are in milliseconds.
"""

from __future__ import annotations

import math
import random
from array import array
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import simpy

ServiceTime = Callable[[int, random.Random], float]
"""Milliseconds that a batch of so many takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A cell, with the limits of serve_configs/production.yaml unless said otherwise."""

    service: ServiceTime
    replicas: int
    max_batch: int = 32
    wait_ms: float = 2.0
    max_ongoing: float = 64
    """Requests at a replica, computed or waiting."""
    max_queued: float = 128
    """Requests that wait in the cell, for each replica; Ray counts them by proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Ray Serve's autoscaler (2.60, `ray.serve.autoscaling_policy`), upwards only: a fall takes
    `downscale_delay_s` of 600 and no run here lasts that long."""

    target_ongoing: float = 32
    most: int
    look_back_s: float = 30.0
    upscale_delay_s: float = 10.0
    look_every_s: float = 1.0
    start_s: float = 60.0
    """Assumed: from the decision until a replica answers, on a node that is there."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it came, and what is done once it is answered."""

    came: float
    done: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """What became of requests. All are times of coming, but `wait` until the batch began and
    `took` until the answer, which go with `answered`."""

    answered: array[float] = field(default_factory=lambda: array("d"))
    wait: array[float] = field(default_factory=lambda: array("d"))
    took: array[float] = field(default_factory=lambda: array("d"))
    refused: array[float] = field(default_factory=lambda: array("d"))
    lost: array[float] = field(default_factory=lambda: array("d"))


class Replica:
    """One process that computes one batch at a time."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._waiting: deque[Request] = deque()
        self._computing: list[Request] = []
        self._more: simpy.Event | None = None
        self._wanted = 1
        self.alive = True
        cell.env.process(self._serve())

    @property
    def ongoing(self) -> int:
        """Requests that are computed or wait here."""
        return len(self._waiting) + len(self._computing)

    def take(self, request: Request) -> None:
        """Queue a request; a dead replica keeps it for ever."""
        self._waiting.append(request)
        if self._more and len(self._waiting) >= self._wanted:
            self._more.succeed()
            self._more = None

    def drop(self) -> None:
        """Its node is gone for everybody: what it held is lost."""
        lost = (*self._computing, *self._waiting)
        self._cell.log.lost.extend(request.came for request in lost)

    def _until(self, count: int) -> simpy.Event:
        self._wanted, self._more = count, self._cell.env.event()
        return self._more

    def _serve(self) -> Generator[simpy.Event]:
        env, settings = self._cell.env, self._cell.settings
        while True:
            if not self._waiting:
                yield self._until(1)
            if settings.wait_ms and len(self._waiting) < settings.max_batch:
                yield self._until(settings.max_batch) | env.timeout(settings.wait_ms)
                self._more = None
            size = min(len(self._waiting), settings.max_batch)
            self._computing = [self._waiting.popleft() for _ in range(size)]
            begun = env.now
            yield env.timeout(settings.service(size, self._cell.rng))
            if not self.alive:
                return
            answered, self._computing = self._computing, []
            for request in answered:
                self._cell.answer(request, begun)
            self._cell.freed(self)


@dataclass(slots=True)
class Cell:
    """Replicas and what waits for them; `sizes` are (time, replicas) since each change.

    `dark` is the share of the requests that go to the proxy of a lost node.
    """

    env: simpy.Environment
    settings: Settings
    rng: random.Random
    replicas: list[Replica] = field(default_factory=list)
    log: Log = field(default_factory=Log)
    dark: float = 0.0
    sizes: list[tuple[float, int]] = field(default_factory=list)
    _queue: deque[Request] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.add(self.settings.replicas)

    @property
    def ongoing(self) -> int:
        """Requests in the cell."""
        return len(self._queue) + sum(replica.ongoing for replica in self.replicas)

    def add(self, count: int) -> None:
        """Start replicas that answer at once."""
        for _ in range(count):
            self.replicas.append(Replica(self))
            self.freed(self.replicas[-1])
        self.sizes.append((self.env.now, len(self.replicas)))

    def ask(self, done: Callable[[], object] | None = None) -> None:
        """A request comes; `done` is called once it is answered."""
        request = Request(self.env.now, done)
        if self.dark and self.rng.random() < self.dark:
            self.log.lost.append(request.came)
            return
        replica = self._choose()
        if replica:
            replica.take(request)
        elif len(self._queue) < self.settings.max_queued * len(self.replicas):
            self._queue.append(request)
        else:
            self.log.refused.append(request.came)

    def answer(self, request: Request, begun: float) -> None:
        """A replica has answered what it began to compute at `begun`."""
        self.log.answered.append(request.came)
        self.log.wait.append(begun - request.came)
        self.log.took.append(self.env.now - request.came)
        if request.done:
            request.done()

    def freed(self, replica: Replica) -> None:
        """Give a replica what waits in the cell, as far as it has room."""
        while self._queue and replica.ongoing < self.settings.max_ongoing:
            replica.take(self._queue.popleft())

    def lose(self, count: int) -> list[Replica]:
        """So many replicas and their node's proxy fall silent; the cell does not know yet."""
        silent = self.replicas[:count]
        self.dark = count / len(self.replicas)
        for replica in silent:
            replica.alive = False
        return silent

    def forget(self, silent: list[Replica]) -> None:
        """The cell and the load balancer learn of it: nothing goes there any more."""
        self.dark = 0.0
        for replica in silent:
            replica.drop()
            self.replicas.remove(replica)
        self.sizes.append((self.env.now, len(self.replicas)))

    def _choose(self) -> Replica | None:
        replicas, random_below = self.replicas, self.rng.random
        count = len(replicas)
        if not count:
            return None
        first = replicas[int(random_below() * count)]
        second = replicas[int(random_below() * count)]
        chosen = first if first.ongoing <= second.ongoing else second
        if chosen.ongoing < self.settings.max_ongoing:
            return chosen
        start = int(random_below() * count)
        around = (replicas[(start + step) % count] for step in range(count))
        return next((r for r in around if r.ongoing < self.settings.max_ongoing), None)


def open_arrivals(cell: Cell, rate_per_s: float) -> Generator[simpy.Event]:
    """Poisson requests without end."""
    while True:
        yield cell.env.timeout(cell.rng.expovariate(rate_per_s / 1e3))
        cell.ask()


def ask_steadily(cell: Cell, rate_per_s: float) -> None:
    """Poisson requests from now on."""
    cell.env.process(open_arrivals(cell, rate_per_s))


def closed_clients(cell: Cell, clients: int) -> None:
    """Clients that each ask again as soon as they are answered."""
    for _ in range(clients):
        ask_again(cell)


def ask_again(cell: Cell) -> None:
    """One request, and another one once it is answered."""
    cell.ask(done=lambda: ask_again(cell))


def autoscale(cell: Cell, scaling: Scaling) -> Generator[simpy.Event]:
    """Add replicas as Ray does: the mean of ongoing requests over `look_back_s`, divided by the
    target and rounded up, must be above the present target for `upscale_delay_s` on end."""
    seen: deque[int] = deque(maxlen=math.ceil(scaling.look_back_s / scaling.look_every_s))
    target, since = len(cell.replicas), None
    while True:
        yield cell.env.timeout(1e3 * scaling.look_every_s)
        seen.append(cell.ongoing)
        wanted = min(scaling.most, math.ceil(sum(seen) / len(seen) / scaling.target_ongoing))
        if wanted <= target:
            since = None
            continue
        since = cell.env.now if since is None else since
        if cell.env.now - since >= 1e3 * scaling.upscale_delay_s:
            cell.env.process(start_later(cell, wanted - target, scaling.start_s))
            target, since = wanted, None


def start_later(cell: Cell, count: int, seconds: float) -> Generator[simpy.Event]:
    """Replicas that answer after so long."""
    yield cell.env.timeout(1e3 * seconds)
    cell.add(count)


def lose_node(
    cell: Cell, count: int, at_s: float, noticed_s: float, start_s: float
) -> Generator[simpy.Event]:
    """A node with so many replicas falls silent; after `noticed_s` it is left out, and new ones
    start for it."""
    yield cell.env.timeout(1e3 * at_s)
    silent = cell.lose(count)
    yield cell.env.timeout(1e3 * noticed_s)
    cell.forget(silent)
    yield cell.env.process(start_later(cell, count, start_s))


def run_cell(
    settings: Settings, begin: Callable[[Cell], object], seconds: float, seed: int = 0
) -> Cell:
    """A cell after so many seconds of what `begin` sets going in it."""
    env = simpy.Environment()
    cell = Cell(env, settings, random.Random(seed))
    begin(cell)
    env.run(until=1e3 * seconds)
    return cell

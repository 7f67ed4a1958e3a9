"""A day of the serving tier, simulated: 100,000 requests a second in the busiest hour.

    python -m benchmarks.capacity.simulation --output <dir>

Not every request of 5 billion is simulated. The load balancer splits Poisson traffic at random over
equal cells, and what a cell gets is Poisson again, exactly; cells share nothing but the store. So
one cell of `cell_replicas` stands for all. Of each hour `seconds` are simulated, at that hour's
rate and with the replicas that the autoscaler has come to by then: traffic changes in hours, it
follows in minutes. A node lost in the busiest hour is simulated whole, autoscaler and all. The
model is first held against the measured service, with clients that wait for their answers.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
import tyro
from matplotlib.figure import Figure

from benchmarks.capacity import facts
from benchmarks.capacity.cell import (
    Cell,
    Scaling,
    ServiceTime,
    Settings,
    ask_steadily,
    autoscale,
    closed_clients,
    lose_node,
    run_cell,
)
from benchmarks.capacity.serving import BatchTime, request_time, search_time

PEAK_HOUR = 20
"""Assumed: evenings."""
WARM_UP_S = 3.0
FALL_S, RISE_S = 600.0, 100.0
"""How late replicas go (`downscale_delay_s`) and come (look-back, `upscale_delay_s`, start)."""
LOSS_AT_S, LOSS_FOR_S, NOTICED_S = 20.0, 130.0, 15.0
"""Seconds of the run with a lost node: it goes, the run ends, three health checks have failed."""
BUCKET_S = 5.0


@dataclass(frozen=True)
class Arguments:
    """What is simulated."""

    output: str = "outputs/capacity"
    """Directory of `day.png` and `day.json`."""
    peak: float = 100_000.0
    """Requests a second in the busiest hour, over all cells."""
    items: int = 1_000_000
    """Items of the catalogue."""
    cell_replicas: int = 32
    """Replicas of a cell in the busiest hour."""
    node_replicas: int = 8
    """Replicas that go with a node: an m7i.4xlarge has 8 cores."""
    targets: tuple[float, ...] = (32.0, 12.0)
    """`target_ongoing_requests` to compare; production.yaml has 32."""
    seconds: float = 10.0
    """Simulated of each hour."""
    seed: int = 0
    """Seed of arrivals, choices and service times."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients see; shares are of all requests, milliseconds of the answered ones."""

    requests: int
    p50_ms: float
    p99_ms: float
    refused: float
    lost: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A row of `benchmarks.serve_vs_fastapi` beside the simulation of the same load."""

    clients: int
    measured_rate: float
    simulated_rate: float
    percentile: int
    measured_ms: float
    simulated_ms: float


MEASURED = {1: (142.0, 50, 6.7), 16: (488.0, 99, 62.0), 64: (560.0, 99, 272.0)}
"""Requests/s, a percentile and its ms by number of clients (`benchmarks.serve_vs_fastapi`)."""


def service_time(batch: BatchTime, spread: float) -> ServiceTime:
    """Lognormal around a batch's time, with this standard deviation over the mean."""
    sigma = math.sqrt(math.log(1 + spread**2))

    def draw(size: int, rng: random.Random) -> float:
        return batch.of(size) * math.exp(rng.gauss(-(sigma**2) / 2, sigma))

    return draw


def rate_at(hour: float, peak: float, trough: float) -> float:
    """Requests a second: a cosine with `peak` at `PEAK_HOUR` and that share of it 12 hours off."""
    wave = (1 + math.cos(2 * math.pi * (hour - PEAK_HOUR) / 24)) / 2
    return peak * (trough + (1 - trough) * wave)


def seen(cell: Cell, since_s: float, until_s: float) -> Seen:
    """What became of the requests that came in a time; those still under way count for nothing."""
    came = np.asarray(cell.log.answered)
    inside = (came >= 1e3 * since_s) & (came < 1e3 * until_s)
    took = np.asarray(cell.log.took)[inside]
    refused, lost = (_count(times, since_s, until_s) for times in (cell.log.refused, cell.log.lost))
    requests = len(took) + refused + lost
    p50, p99 = np.percentile(took, [50, 99]).tolist() if len(took) else (math.inf, math.inf)
    whole = max(1, requests)
    return Seen(requests, round(p50, 2), round(p99, 2), refused / whole, lost / whole)


def _count(times: Sequence[float], since_s: float, until_s: float) -> int:
    found = np.asarray(times)
    return int(((found >= 1e3 * since_s) & (found < 1e3 * until_s)).sum())


def rate_at_target(settings: Settings, target: float, seed: int) -> float:
    """Requests a second and replica at which `target` requests are under way in each, by halving.

    That is where the autoscaler comes to rest: it sets replicas to all requests under way over the
    target. By Little's law, they are the rate times the mean latency.
    """
    low, high = 1.0, 1e3 / settings.service(1, random.Random(0)) * settings.max_batch
    for _ in range(9):
        rate = (low + high) / 2
        cell = run_cell(settings, lambda c, r=rate: ask_steadily(c, r * settings.replicas), 4, seed)
        calm = not cell.log.refused and len(cell.log.took)
        under_way = rate * float(np.mean(cell.log.took)) / 1e3 if calm else math.inf
        low, high = (rate, high) if under_way < target else (low, rate)
    return low


def replicas_by(hour: float, peak: float, trough: float, each: float) -> int:
    """Replicas at an hour: what the traffic asked for between `FALL_S` and `RISE_S` ago."""
    since = (FALL_S, (FALL_S + RISE_S) / 2, RISE_S)
    return max(math.ceil(rate_at(hour - late / 3_600, peak, trough) / each) for late in since)


def simulate_day(arguments: Arguments, service: ServiceTime, target: float) -> list[dict]:
    """A row an hour: rate and replicas of all cells, and what clients see of one."""
    probe = Settings(service=service, replicas=8)
    each = rate_at_target(probe, target, arguments.seed)
    trough = facts.TROUGH.value
    most = replicas_by(PEAK_HOUR, arguments.peak, trough, each)
    cells = max(1, round(most / arguments.cell_replicas))
    rows = []
    for hour in range(24):
        rate = rate_at(hour + 0.5, arguments.peak, trough) / cells
        held = replicas_by(hour + 0.5, arguments.peak / cells, trough, each)
        cell = run_cell(
            Settings(service=service, replicas=held),
            lambda c, r=rate: ask_steadily(c, r),
            WARM_UP_S + arguments.seconds,
            arguments.seed + hour,
        )
        saw = seen(cell, WARM_UP_S, WARM_UP_S + arguments.seconds)
        rows.append({"hour": hour, "rate": rate * cells, "replicas": held * cells} | asdict(saw))
    return rows


def simulate_loss(arguments: Arguments, service: ServiceTime, busiest: dict) -> list[dict]:
    """A node is lost in the busiest hour: what clients of its cell see, every `BUCKET_S`."""
    cells = max(1, round(busiest["replicas"] / arguments.cell_replicas))
    held, rate = busiest["replicas"] // cells, busiest["rate"] / cells
    scaling = Scaling(target_ongoing=busiest["target"], most=2 * held)

    def begin(cell: Cell) -> None:
        ask_steadily(cell, rate)
        cell.env.process(autoscale(cell, scaling))
        lost = min(arguments.node_replicas, held)
        cell.env.process(lose_node(cell, lost, LOSS_AT_S, NOTICED_S, scaling.start_s))

    settings = Settings(service=service, replicas=held)
    cell = run_cell(settings, begin, LOSS_FOR_S, arguments.seed)
    starts = np.arange(BUCKET_S, LOSS_FOR_S - BUCKET_S, BUCKET_S).tolist()
    return [{"second": at, **asdict(seen(cell, at, at + BUCKET_S))} for at in starts]


def against_measured(seed: int) -> list[Measured]:
    """The closed loops of `benchmarks.serve_vs_fastapi`: one replica, clients that ask again."""
    service = service_time(request_time(), facts.SPREAD.value)
    settings = Settings(service=service, replicas=1, max_ongoing=256)
    rows = []
    for clients, (rate, percentile, milliseconds) in MEASURED.items():
        cell = run_cell(settings, lambda c, n=clients: closed_clients(c, n), 60, seed)
        found = float(np.percentile(cell.log.took, percentile))
        answered = len(cell.log.took) / 60
        rows.append(
            Measured(clients, rate, round(answered, 1), percentile, milliseconds, round(found, 1))
        )
    return rows


def draw_day(found: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """Latency by hour and replicas above, the lost node below; a colour for each target."""
    with matplotlib.rc_context({"font.size": 8, "axes.spines.top": False}):
        figure = Figure(figsize=(7, 5), layout="constrained")
        hours, loss = figure.subplots(2, 1)
        held = hours.twinx()
        for number, (target, parts) in enumerate(found.items()):
            day, after, colour = parts["day"], parts["loss"], f"C{number}"
            at = [row["hour"] for row in day]
            hours.plot(at, [r["p99_ms"] for r in day], colour, label=f"p99, target {target}")
            hours.plot(at, [r["p50_ms"] for r in day], colour, ls="--", label=f"p50, {target}")
            held.step(at, [r["replicas"] for r in day], colour, where="mid", ls=":", lw=1)
            seconds = [row["second"] for row in after]
            unanswered = [100 * (r["refused"] + r["lost"]) for r in after]
            loss.plot(seconds, unanswered, colour, label=f"refused or lost, target {target}")
        hours.set(xlabel="hour of the day", ylabel="ms", ylim=(0, None))
        held.set(ylabel="replicas (dotted)", ylim=(0, None))
        loss.set(xlabel="seconds; a node falls silent at 20", ylabel="% of a cell's requests")
        figure.legend(*hours.get_legend_handles_labels(), loc="outside upper center", ncols=4)
        loss.legend(frameon=False)
        figure.savefig(path, dpi=100, metadata={"Software": None})


def main(arguments: Arguments) -> None:
    """Simulate, write `day.json` and `day.png`, and print the result as one JSON object."""
    batch = request_time().plus(search_time(arguments.items, 128))
    service = service_time(batch, facts.SPREAD.value)
    found = {}
    for target in arguments.targets:
        day = simulate_day(arguments, service, target)
        busiest = max(day, key=lambda row: row["rate"]) | {"target": target}
        loss = simulate_loss(arguments, service, busiest)
        found[f"{target:g}"] = {"day": day, "loss": loss}
    measured = [asdict(row) for row in against_measured(arguments.seed)]
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    draw_day(found, folder / "day.png")
    whole = {"arguments": asdict(arguments), "measured": measured, "by_target": found}
    (folder / "day.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    summary = {target: _summary(parts, arguments) for target, parts in found.items()}
    print(json.dumps({"benchmark": "capacity.simulation", "measured": measured} | summary))


def _summary(parts: dict[str, list[dict]], arguments: Arguments) -> dict:
    day, loss = parts["day"], parts["loss"]
    busiest = max(day, key=lambda row: row["rate"])
    nodes = sum(math.ceil(row["replicas"] / arguments.node_replicas) for row in day)
    return {
        "replicas": [min(row["replicas"] for row in day), busiest["replicas"]],
        "node_hours": nodes,
        "usd_a_day": round(nodes * facts.NODE_HOUR.value, 2),
        "busiest": busiest,
        "worst_p99_ms": max(row["p99_ms"] for row in day),
        "refused_of_a_day": _weighted(day, "refused"),
        "after_a_lost_node": {name: _weighted(loss, name) for name in ("refused", "lost")},
    }


def _weighted(rows: list[dict], name: str) -> float:
    return sum(r[name] * r["requests"] for r in rows) / sum(r["requests"] for r in rows)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

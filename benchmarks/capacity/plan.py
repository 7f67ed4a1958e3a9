"""All stages of a deployment, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.capacity import facts
from benchmarks.capacity.architectures import MODELS
from benchmarks.capacity.cell import Settings, ask_steadily, run_cell
from benchmarks.capacity.demand import Demand
from benchmarks.capacity.serving import ServingCost, serving_cost
from benchmarks.capacity.simulation import Seen, seen, service_time
from benchmarks.capacity.stages import alike_flops, prepare_job, storage
from benchmarks.capacity.training import (
    embedding_hours,
    smallest_stage,
    training_cost,
)
from recsys.training.speed import PEAK_FLOPS

PROBED_REPLICAS, PROBED_S, WARM_UP_S = 8, 10.0, 2.0
RUNS_A_MONTH = 30
"""Prepare, training and index once a day."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a stage, what of it, the figure, and money a month where it costs."""

    stage: str
    what: str
    value: float
    unit: str
    usd_a_month: float | None = None


def plan(demand: Demand) -> list[Row]:
    """Every stage's needs; jobs run once a day, S3 holds a year."""
    return [*_prepare(demand), *_training(demand), *_index(demand), *_serving(demand)] + _storage(
        demand
    )


def simulated_latency(demand: Demand, cost: ServingCost) -> Seen:
    """Latency of a few replicas that each get the rate of the plan, without network."""
    service = service_time(cost.batch, facts.SPREAD.value)
    cell = run_cell(
        Settings(service=service, replicas=PROBED_REPLICAS),
        lambda c: ask_steadily(c, cost.replica_rate * PROBED_REPLICAS),
        WARM_UP_S + PROBED_S,
    )
    return seen(cell, WARM_UP_S, WARM_UP_S + PROBED_S)


def _prepare(demand: Demand) -> list[Row]:
    job = prepare_job(demand)
    return [
        Row("prepare", "events read", demand.events, "rows"),
        Row("prepare", "nodes", job.nodes, facts.NODE_HOUR.source.split(",")[0]),
        Row("prepare", "by the clock", 60 * job.hours, "min", RUNS_A_MONTH * job.usd),
    ]


def _training(demand: Demand) -> list[Row]:
    as_is, shared = training_cost(demand), training_cost(demand, shared=True)
    stage, need, fits = smallest_stage(demand)
    fit = "fits" if fits else f"does not fit {facts.GPUS[demand.gpu].memory_gib:.0f} GiB"
    return [
        Row("train", "steps", as_is.steps, "steps"),
        Row("train", "items encoded in a step by a rank", as_is.encodes_a_step, "items"),
        Row("train", f"memory of a rank, ZeRO-{stage}", need, f"GiB, {fit}"),
        Row("train", f"on {demand.gpus} {demand.gpu}", as_is.hours, "h"),
        Row("train", "GPU hours", as_is.gpu_hours, "GPU h", RUNS_A_MONTH * as_is.usd),
        Row("train", "GPU hours if ranks shared the encoding", shared.gpu_hours, "GPU h"),
    ]


def _index(demand: Demand) -> list[Row]:
    hours = embedding_hours(demand)
    speed = PEAK_FLOPS[demand.gpu] * facts.INFERENCE_MFU.value
    alike = alike_flops(demand, MODELS[demand.model].width) / speed / 3_600
    price = RUNS_A_MONTH * facts.GPUS[demand.gpu].hour_usd
    return [
        Row("index", "texts encoded", 60 * hours, "GPU min", hours * price),
        Row("index", "alike items compared", 60 * alike, "GPU min", alike * price),
    ]


def _serving(demand: Demand) -> list[Row]:
    cost = serving_cost(demand)
    saw = simulated_latency(demand, cost)
    return [
        Row("serve", "requests/s of a replica", cost.replica_rate, "requests/s"),
        Row("serve", "replicas in the peak", cost.replicas, "replicas"),
        Row("serve", "memory of a replica", cost.replica_gib, "GiB"),
        Row("serve", "history store (Redis)", cost.store_gib, "GiB"),
        Row("serve", "nodes of the store", cost.store_nodes, "nodes"),
        Row("serve", "nodes in the peak", cost.nodes, "nodes", cost.usd_a_month),
        Row("serve", "a million requests", cost.usd_a_million, "USD"),
        Row("serve", "p50 in the peak, simulated", saw.p50_ms, "ms"),
        Row("serve", "p99 in the peak, simulated", saw.p99_ms, "ms"),
    ]


def _storage(demand: Demand) -> list[Row]:
    kept = storage(demand)
    return [
        Row("store", "events of a year", kept.events_gib, "GiB"),
        Row("store", "exposures of a year, ten items each", kept.exposures_gib, "GiB"),
        Row("store", "catalogue and index", kept.items_gib + kept.index_gib, "GiB"),
        Row("store", "S3", kept.usd_a_month, "USD a month", kept.usd_a_month),
    ]

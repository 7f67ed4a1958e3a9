"""The other stages on paper: prepare, index, and what is kept in S3."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.capacity import facts
from benchmarks.capacity.demand import Demand
from recsys.config import IndexConfig


@dataclass(frozen=True, slots=True)
class Job:
    """A job on some nodes: hours by the clock, and money."""

    nodes: int
    hours: float
    usd: float


@dataclass(frozen=True, slots=True)
class Storage:
    """GiB in S3, and money a month."""

    events_gib: float
    exposures_gib: float
    items_gib: float
    index_gib: float
    usd_a_month: float


def prepare_job(demand: Demand, wanted_s: float = 600.0) -> Job:
    """Nodes that prepare all events and items within `wanted_s` beside the start."""
    cpu = demand.events * facts.PREPARE_ROW.value + demand.items * facts.PREPARE_ITEM.value
    cores = facts.NODE_VCPUS.value / facts.VCPUS_A_CORE.value
    nodes = max(1, math.ceil(cpu / cores / wanted_s))
    hours = (facts.PREPARE_START.value + cpu / cores / nodes) / 3_600
    return Job(nodes, hours, nodes * hours * facts.NODE_HOUR.value)


def alike_flops(demand: Demand, width: int) -> float:
    """Operations of comparing each item's text with each (`index.alike`): 2 N^2 D."""
    return 2.0 * demand.items**2 * width if IndexConfig.model_fields["alike"].default else 0.0


def storage(demand: Demand, top_k: int = 10) -> Storage:
    """A year of events and exposures, the catalogue, and one index of fp32 vectors."""
    mean_rate = demand.requests_per_second * facts.MEAN_SHARE.value
    events = 365 * demand.interactions_per_day * facts.EVENT_RAW.value
    exposures = 365 * 86_400 * mean_rate * top_k * facts.SHOWN_ITEM.value
    items = demand.items * facts.ITEM_TEXT.value
    an_item = 4 * demand.embedding_size + 8 * IndexConfig.model_fields["transitions"].default
    index = demand.items * an_item
    kept = events + exposures + items + index
    usd = kept / 1e9 * facts.S3_MONTH.value
    return Storage(events / 2**30, exposures / 2**30, items / 2**30, index / 2**30, usd)

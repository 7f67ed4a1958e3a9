"""Serving on paper: how long a batch takes, replicas, nodes, memory.

A replica is one process that computes one batch at a time on a core. The benchmarks' CPU time a
request counts everything that serves it, HTTP and proxy too, so two vCPUs (`VCPUS_A_CORE`) hold a
replica with its share of those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.capacity import facts
from benchmarks.capacity.architectures import MODELS
from benchmarks.capacity.demand import Demand
from recsys.config import IndexConfig, ServeArgs

BATCH = ServeArgs.model_fields["max_batch_size"].default
WAIT_MS = 1e3 * ServeArgs.model_fields["batch_wait_timeout_s"].default


@dataclass(frozen=True, slots=True)
class BatchTime:
    """Milliseconds of a batch: `fixed` and so much for `each` request."""

    fixed: float
    each: float

    @classmethod
    def through(cls, alone: float, full: float, size: float) -> BatchTime:
        """The line through the time of 1 and of `size` together."""
        each = (full - alone) / (size - 1)
        return cls(alone - each, each)

    def of(self, requests: float) -> float:
        """Milliseconds of a batch of so many."""
        return self.fixed + self.each * requests

    def rate(self, requests: float) -> float:
        """Requests a second in back-to-back batches of so many."""
        return 1e3 * requests / self.of(requests)

    def plus(self, other: BatchTime, share: float = 1.0) -> BatchTime:
        """This and `share` of another after it."""
        return BatchTime(self.fixed + share * other.fixed, self.each + share * other.each)


@dataclass(frozen=True, slots=True)
class ServingCost:
    """What answering the peak takes."""

    batch: BatchTime
    replica_rate: float
    """Requests a second of one replica at `UTILISATION`."""
    replicas: int
    replica_gib: float
    nodes: int
    store_gib: float
    store_nodes: int
    usd_a_month: float
    usd_a_million: float


def request_time() -> BatchTime:
    """A batch with next to no catalogue, by the CPU time of a request alone and among 32."""
    size = facts.MEASURED_BATCH.value
    return BatchTime.through(facts.SERVE_ALONE.value, facts.SERVE_FULL.value * size, size)


def search_time(items: int, size: int) -> BatchTime:
    """Search among vectors of `size`: exact up to `index.approximate_above` items, then IVF.

    Exact search grows with items x size; IVF with its lists, of which there are 2 sqrt(N), so by
    the root of the items where the same number of lists is looked into.
    """
    full = facts.MEASURED_BATCH.value
    grown = items / facts.SEARCHED_ITEMS.value
    if items <= IndexConfig.model_fields["approximate_above"].default:
        one = BatchTime.through(facts.EXACT_ALONE.value, facts.EXACT_FULL.value, full)
    else:
        one = BatchTime.through(facts.IVF_ALONE.value, facts.IVF_FULL.value, full)
        grown = math.sqrt(grown)
    return BatchTime(0.0, 0.0).plus(one, grown * size / 128)


def replica_gib(demand: Demand) -> float:
    """Memory of a replica: itself, vectors and a language model in fp32, transitions, items."""
    transitions = IndexConfig.model_fields["transitions"].default
    an_item = 4 * demand.embedding_size + 8 * transitions + facts.ITEM_TEXT.value
    search = 4 * MODELS[demand.model].width
    held = demand.items * (an_item + search) + 4 * MODELS[demand.model].weights
    return facts.REPLICA_OWN.value + held / 2**30


def store_gib(demand: Demand) -> float:
    """Redis: the newest `max_history` events of each user, or as many as there are."""
    a_user = min(demand.max_history, demand.events / demand.active_users)
    return demand.active_users * a_user * facts.EVENT_STORED.value / 2**30


def serving_cost(demand: Demand) -> ServingCost:
    """Replicas and nodes for the busiest hour, and a month's money at the daily curve's mean."""
    batch = request_time().plus(search_time(demand.items, demand.embedding_size))
    rate = batch.rate(BATCH) * facts.UTILISATION.value
    replicas = math.ceil(demand.requests_per_second / rate)
    need = replica_gib(demand)
    by_cpu = facts.NODE_VCPUS.value / facts.VCPUS_A_CORE.value
    on_a_node = int(min(by_cpu, facts.NODE_MEMORY.value / need))
    if on_a_node == 0:
        raise ValueError(
            f"a replica takes {need:.0f} GiB and a node has {facts.NODE_MEMORY.value:.0f}: use "
            "larger nodes, a shorter embedding_size or a smaller model"
        )
    nodes = math.ceil(replicas / on_a_node)
    held = store_gib(demand)
    store_nodes = math.ceil(held / (facts.NODE_MEMORY.value * facts.STORE_SHARE.value))
    mean_nodes = nodes * facts.MEAN_SHARE.value + store_nodes
    month = mean_nodes * facts.NODE_HOUR.value * 24 * 30
    asked = demand.requests_per_second * facts.MEAN_SHARE.value * 86_400 * 30
    return ServingCost(
        batch=batch,
        replica_rate=rate,
        replicas=replicas,
        replica_gib=need,
        nodes=nodes,
        store_gib=held,
        store_nodes=store_nodes,
        usd_a_month=month,
        usd_a_million=1e6 * month / asked,
    )

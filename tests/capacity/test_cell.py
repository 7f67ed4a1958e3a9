"""The simulated cell: queueing theory where it is known, limits, a lost node, autoscaling."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.capacity.cell import (
    Cell,
    Scaling,
    Settings,
    ask_steadily,
    autoscale,
    closed_clients,
    lose_node,
    run_cell,
)
from benchmarks.capacity.queueing import wait_of_equal_jobs, wait_with_servers

SERVICE_MS = 10.0


def equal(size: int, rng: random.Random) -> float:
    """A batch takes as long as one request."""
    return SERVICE_MS


def exponential(size: int, rng: random.Random) -> float:
    return rng.expovariate(1 / SERVICE_MS)


def one_by_one(service, replicas: int) -> Settings:
    """A queue as theory has it: one queue, no batches, no limit."""
    return Settings(
        service=service,
        replicas=replicas,
        max_batch=1,
        wait_ms=0,
        max_ongoing=1,
        max_queued=math.inf,
    )


def accounted(cell: Cell) -> int:
    log = cell.log
    return len(log.answered) + len(log.refused) + len(log.lost) + cell.ongoing


def test_waits_are_those_of_many_servers_with_exponential_times():
    # 120,000 requests: between seeds the mean wait differs by 2% (one standard deviation).
    rate = 120.0
    cell = run_cell(one_by_one(exponential, 2), lambda c: ask_steadily(c, rate), 1_000, seed=1)
    theory = wait_with_servers(rate / 1e3, SERVICE_MS, 2)
    assert np.mean(cell.log.wait) == pytest.approx(theory, rel=0.05)


def test_waits_are_those_of_one_server_with_equal_times():
    rate = 70.0
    cell = run_cell(one_by_one(equal, 1), lambda c: ask_steadily(c, rate), 1_000, seed=1)
    theory = wait_of_equal_jobs(rate / 1e3, SERVICE_MS)
    assert np.mean(cell.log.wait) == pytest.approx(theory, rel=0.05)


def test_the_formulas_give_textbook_values():
    # M/M/1: rho s / (1 - rho). M/M/2 at rho .5: C = 1/3, so the wait is (1/3) s / (2 - 1).
    assert wait_with_servers(0.5, 1.0, 1) == pytest.approx(1.0)
    assert wait_with_servers(1.0, 1.0, 2) == pytest.approx(1 / 3)
    assert wait_of_equal_jobs(0.5, 1.0) == pytest.approx(0.5)


def test_a_load_beyond_the_servers_is_refused():
    with pytest.raises(ValueError, match="must be below"):
        wait_with_servers(2.0, 1.0, 2)


def test_a_lone_client_pays_the_wait_for_a_batch_and_the_batch():
    cell = run_cell(Settings(service=equal, replicas=1), lambda c: closed_clients(c, 1), 1)
    assert set(np.round(cell.log.took, 6)) == {12.0}


def test_clients_of_two_full_batches_each_wait_for_the_other_batch():
    cell = run_cell(Settings(service=equal, replicas=1), lambda c: closed_clients(c, 64), 10)
    # The first 64 come at once to an idle replica; from then on two batches of 32 alternate.
    assert set(np.round(cell.log.took[64:], 6)) == {20.0}
    assert len(cell.log.took) == pytest.approx(10_000 / SERVICE_MS * 32, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(
    rate=st.floats(10, 2_000),
    replicas=st.integers(1, 4),
    max_batch=st.integers(1, 8),
    max_ongoing=st.integers(1, 16),
    max_queued=st.integers(0, 4),
)
def test_limits_hold_and_no_request_vanishes(rate, replicas, max_batch, max_ongoing, max_queued):
    sizes: list[int] = []
    asked = 0

    def service(size: int, rng: random.Random) -> float:
        sizes.append(size)
        return SERVICE_MS

    def ask_and_look(cell: Cell):
        nonlocal asked
        while True:
            yield cell.env.timeout(cell.rng.expovariate(rate / 1e3))
            cell.ask()
            asked += 1
            assert all(replica.ongoing <= max_ongoing for replica in cell.replicas)

    def begin(cell: Cell) -> None:
        cell.env.process(ask_and_look(cell))
        cell.env.process(lose_node(cell, 1, at_s=0.1, noticed_s=0.1, start_s=0.1))

    limits = {"max_batch": max_batch, "max_ongoing": max_ongoing, "max_queued": max_queued}
    cell = run_cell(Settings(service=service, replicas=replicas, **limits), begin, 0.5)
    assert accounted(cell) == asked
    assert max(sizes, default=0) <= max_batch


def test_what_exceeds_replicas_and_queue_is_refused():
    service = Settings(service=equal, replicas=2, max_batch=1, max_ongoing=3, max_queued=2)
    cell = run_cell(service, lambda c: [c.ask() for _ in range(15)], 0.001)
    # Two replicas with three each, four in the queue, the other five refused.
    assert (cell.ongoing, len(cell.log.refused)) == (10, 5)


def test_a_lost_node_takes_its_share_until_it_is_noticed_and_is_replaced():
    def begin(cell: Cell) -> None:
        ask_steadily(cell, 1_000)
        cell.env.process(lose_node(cell, 2, at_s=1, noticed_s=2, start_s=3))

    cell = run_cell(Settings(service=equal, replicas=8), begin, 8)
    lost = np.asarray(cell.log.lost) / 1e3
    # What was being computed goes, and what waited behind it: two batches, of at most 12 ms each.
    assert lost.min() >= 1 - 0.024
    assert lost.max() < 3.0
    # A quarter of the proxies for two seconds, and what two silent replicas held.
    assert len(lost) == pytest.approx(2_000 / 4 + 2 * 64, rel=0.15)
    assert cell.sizes == [(0, 8), (3_000, 6), (6_000, 8)]


def test_autoscaling_waits_for_its_delay_and_for_the_start_of_a_replica():
    # Without end of service all requests stay under way, so 250 ask for 8 replicas at once.
    def never(size: int, rng: random.Random) -> float:
        return math.inf

    def begin(cell: Cell) -> None:
        for _ in range(250):
            cell.ask()
        cell.env.process(autoscale(cell, Scaling(target_ongoing=32, most=16, start_s=20)))

    roomy = {"max_ongoing": 1_000, "max_batch": 1}
    cell = run_cell(Settings(service=never, replicas=2, **roomy), begin, 60)
    # The first look is at 1 s, the decision at 11 s, the replicas answer at 31 s.
    assert cell.sizes == [(0, 2), (31_000, 8)]


def test_autoscaling_leaves_a_calm_cell_alone():
    def begin(cell: Cell) -> None:
        ask_steadily(cell, 50)
        cell.env.process(autoscale(cell, Scaling(most=16)))

    cell = run_cell(Settings(service=equal, replicas=2), begin, 60)
    assert cell.sizes == [(0, 2)]

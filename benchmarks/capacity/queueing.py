"""Waiting times that are known in closed form, which the simulation is held against.

Rates are in requests a unit of time, times in that unit.
"""

from __future__ import annotations

import math


def wait_with_servers(rate: float, service: float, servers: int) -> float:
    """Mean wait of M/M/c: Erlang's C over what is left of the capacity.

    Kleinrock, Queueing Systems I (1975), section 3.5.

    Raises:
        ValueError: the load is not below what the servers can do.
    """
    load = rate * service
    _check_load(load, servers)
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) / (1 - load / servers)
    waits = last / (sum(terms) + last)
    return waits * service / (servers - load)


def wait_of_equal_jobs(rate: float, service: float) -> float:
    """Mean wait of M/D/1: rho s / (2 (1 - rho)) (Pollaczek and Khinchine).

    Raises:
        ValueError: the load is not below 1.
    """
    load = rate * service
    _check_load(load, 1)
    return load * service / (2 * (1 - load))


def _check_load(load: float, servers: int) -> None:
    if not 0 < load < servers:
        raise ValueError(f"a load of {load:.3g} does not fit {servers} server(s): it must be below")

"""One trainer a run: who comes second is told who holds it, and takes over from the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import recsys.training.lease
from recsys.training.lease import LEASE, Holder, Lease, LeaseError, hold, read_holder


def no_wait(seconds: float) -> None:
    """Time passes, and nobody does anything."""


def holder(run: Path) -> Holder:
    found = read_holder(str(run / LEASE))
    assert found is not None
    return found


def elsewhere(run: Path) -> None:
    """The lease's holder is on another machine, of whose processes nobody here knows."""
    other = holder(run).model_copy(update={"machine": "other", "host": "far", "pid": 7})
    (run / LEASE).write_text(other.model_dump_json())


def renewing(run: Path) -> Callable[[float], None]:
    """Time passes, and the holder renews."""

    def wait(seconds: float) -> None:
        found = holder(run)
        renewed = found.model_copy(update={"renewals": found.renewals + 1})
        (run / LEASE).write_text(renewed.model_dump_json())

    return wait


def test_a_lease_is_there_while_it_is_held_and_gone_after(tmp_path: Path) -> None:
    with hold(str(tmp_path)):
        assert holder(tmp_path).pid == os.getpid()
    assert not (tmp_path / LEASE).exists()


def test_a_run_that_fails_gives_its_lease_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(str(tmp_path)):
        _ = 1 // 0
    assert not (tmp_path / LEASE).exists()


def test_who_comes_second_is_told_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    Lease(str(tmp_path), wait=no_wait)
    elsewhere(tmp_path)
    told = r"being trained by process 7 on far: wait until it ends, stop it, or choose"
    with pytest.raises(LeaseError, match=told):
        Lease(str(tmp_path), wait=renewing(tmp_path))


def test_a_holder_that_shows_no_life_is_replaced_and_finds_out(tmp_path: Path) -> None:
    first = Lease(str(tmp_path), wait=no_wait)
    elsewhere(tmp_path)
    waited: list[float] = []
    second = Lease(str(tmp_path), wait=waited.append)
    assert sum(waited) >= recsys.training.lease.EXPIRES_S
    with pytest.raises(LeaseError):
        first.renew()
    first.release()
    second.renew()
    assert holder(tmp_path).renewals == 1


def test_a_process_of_this_machine_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    take = "import sys; from recsys.training.lease import Lease; Lease(sys.argv[1])"
    subprocess.run([sys.executable, "-c", take, str(tmp_path)], check=True)
    waited: list[float] = []
    Lease(str(tmp_path), wait=waited.append)
    assert sum(waited) < recsys.training.lease.RENEW_S
    assert holder(tmp_path).pid == os.getpid()


def test_of_two_that_take_it_at_once_the_last_one_has_it(tmp_path: Path) -> None:
    taken: list[Lease] = []

    def other_writes(seconds: float) -> None:
        (tmp_path / LEASE).unlink()
        taken.append(Lease(str(tmp_path), wait=no_wait))

    with pytest.raises(LeaseError):
        Lease(str(tmp_path), wait=other_writes)
    taken[0].check()


def test_a_lease_that_somebody_deleted_is_lost(tmp_path: Path) -> None:
    lease = Lease(str(tmp_path), wait=no_wait)
    (tmp_path / LEASE).unlink()
    with pytest.raises(LeaseError, match="is gone"):
        lease.renew()
    lease.release()


def test_a_damaged_lease_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text('{"owner": "a"')
    Lease(str(tmp_path), wait=no_wait).check()

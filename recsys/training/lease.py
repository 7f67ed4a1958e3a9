"""One trainer a run: a lease in the run's folder that its holder renews, and others respect.

Storage offers no lock that disks and S3 share, so a lease is taken by a write that is read back.
Two that write within `SETTLE_S` of each other: the last one holds it, and the other finds so when
it reads back. What is left is a write that takes longer than that to arrive; its trainer is found
out at the holder's next renewal, and stops at its next checkpoint. No clock is compared with
another machine's: a lease is dead when its file was seen not to change for `EXPIRES_S`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.storage import (
    StorageError,
    filesystem,
    read_bytes,
    retried,
    storage_errors,
    write_bytes,
)

log = logging.getLogger(__name__)

LEASE = "LEASE.json"
RENEW_S, EXPIRES_S, SETTLE_S = 10.0, 60.0, 0.5


class LeaseError(ValueError):
    """Another trainer has the run; the message says which, and what to do."""


class Holder(BaseModel):
    """Who holds a lease; `renewals` grows while it lives."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    owner: str
    host: str
    pid: int
    machine: str
    renewals: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A run's lease, held by this process; `wait` is how it lets seconds pass."""

    def __init__(self, run: str, wait: Callable[[float], object] = time.sleep) -> None:
        """Take it.

        Raises:
            LeaseError: another trainer holds it and lives.
        """
        self._uri, self._wait = f"{run}/{LEASE}", wait
        self._me = Holder(
            owner=uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            machine=_machine(),
            renewals=0,
        )
        self._await_death()
        self._write()
        wait(SETTLE_S)
        self.check()

    def _await_death(self) -> None:
        seen = read_holder(self._uri)
        if seen is None or _is_gone(seen):
            return
        log.warning("%s: held by %s; waiting for a sign of life", self._uri, seen)
        for _ in range(round(EXPIRES_S / RENEW_S) + 1):
            self._wait(RENEW_S)
            found = read_holder(self._uri)
            if found is None:
                return
            if found != seen:
                raise LeaseError(_refusal(self._uri, found))

    def check(self) -> None:
        """Whether this process still holds it.

        Raises:
            LeaseError: another trainer has taken it over.
        """
        found = read_holder(self._uri)
        if found is None or found.owner != self._me.owner:
            raise LeaseError(_refusal(self._uri, found))

    def renew(self) -> None:
        """Show that the holder lives.

        Raises:
            LeaseError: another trainer has taken it over.
        """
        self.check()
        self._me = self._me.model_copy(update={"renewals": self._me.renewals + 1})
        self._write()

    def release(self) -> None:
        """Give it up, unless another has taken it over."""
        found = read_holder(self._uri)
        if found is None or found.owner != self._me.owner:
            return
        fs, path = filesystem(self._uri)
        with storage_errors(self._uri):
            retried(lambda: fs.delete_file(path))

    def _write(self) -> None:
        write_bytes(self._uri, self._me.model_dump_json(indent=2).encode())


def _refusal(uri: str, found: Holder | None) -> str:
    if found is None:
        return f"{uri} is gone: somebody deleted it while this trainer ran; start it again"
    return (
        f"{uri}: this run is being trained by {found}: wait until it ends, stop it, or choose "
        f"another output; {EXPIRES_S:.0f} s after its last sign of life the run is free"
    )


def read_holder(uri: str) -> Holder | None:
    """Who a lease's file names; None where there is none, or nothing that can be read."""
    try:
        return Holder.model_validate_json(read_bytes(uri))
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    except ValidationError:
        log.warning("%s is damaged and counts for nothing", uri)
        return None


def _machine() -> str:
    """What two processes that see each other's numbers share; "" where Linux does not tell it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return ""
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _is_gone(holder: Holder) -> bool:
    """Whether the holder surely ended; of another machine's nobody knows."""
    if not holder.machine or holder.machine != _machine():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and is another user's
    return False


@contextmanager
def hold(run: str) -> Iterator[Lease]:
    """Hold a run's lease and renew it until the end.

    Raises:
        LeaseError: another trainer holds it and lives.
    """
    lease, ended = Lease(run), threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        lease.release()


def _keep(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        try:
            lease.renew()
        except LeaseError as error:
            log.error("%s", error)
            return
        except StorageError as error:
            log.warning("the lease could not be renewed: %s", error)

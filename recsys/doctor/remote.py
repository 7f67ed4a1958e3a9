"""Whether an object store takes and gives what it must, and whether the clock agrees with it."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from uuid import uuid4

from recsys.doctor.finding import Finding
from recsys.storage import (
    StorageError,
    filesystem,
    list_files,
    read_bytes,
    retried,
    storage_errors,
    write_bytes,
)

MAX_SKEW_S = 300.0
"""S3 refuses a signature whose time is 15 minutes off, other services of AWS 5 minutes (Signature
Version 4, "Request date"). Half of it is a warning."""
TIMEOUT_S = 10.0
PROBE_BYTES = 4096
"""More than a refusal has: pyarrow reads one into the room of what it asked for, and cannot tell it
where that is too small."""


def check_object_store(uri: str) -> Finding:
    """List, write, read and delete an object of our own below a directory or URI."""
    check, probe, content = (
        "object store",
        f"{uri.rstrip('/')}/.doctor-{uuid4().hex}",
        os.urandom(PROBE_BYTES),
    )
    step, started = "list", time.perf_counter()
    try:
        list_files(probe)
        step = "write"
        write_bytes(probe, content)
        step = "read"
        read = read_bytes(probe)
        step = "delete"
        _delete(probe)
    except StorageError as error:
        advice = f"allow this identity to {step} below {uri}, or correct what the message names"
        # Jobs write and read; only forgetting a user and clearing up delete.
        verdict = "warning" if step == "delete" else "fault"
        return Finding(check, verdict, f"{step} failed: {error}", advice)
    except ValueError as error:
        return Finding(check, "fault", str(error), "give a directory, s3:// or gs:// URI")
    if read != content:
        return Finding(check, "fault", "what is read is not what was written", "mistrust the store")
    took = time.perf_counter() - started
    return Finding(check, "ok", f"{uri}: list, write, read and delete work, in {took:.2f} s")


def _delete(uri: str) -> None:
    fs, path = filesystem(uri)
    with storage_errors(uri):
        retried(lambda: fs.delete_file(path))


def server_time(url: str) -> float:
    """Unix seconds by the Date header of whoever answers at `url`; its status does not matter.

    Raises:
        OSError: nobody answers.
        ValueError: the answer has no such header.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            header = response.headers["Date"]
    except urllib.error.HTTPError as error:
        header = error.headers["Date"]
    if header is None:
        raise ValueError(f"{url} answers without a Date header")
    return parsedate_to_datetime(header).timestamp()


def check_clock(url: str, now: float) -> Finding:
    """Whether the clock, which says `now`, agrees with the server at `url`."""
    check = "clock"
    try:
        skew = now - server_time(url)
    except (OSError, ValueError) as error:
        advice = "check the network, or name another --clock-url"
        return Finding(check, "warning", f"not compared: {error}", advice)
    # The header has whole seconds, and the answer takes time.
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {url}"
    advice = "set the clock, by chrony or systemd-timesyncd: signed requests would be refused"
    if abs(skew) > MAX_SKEW_S:
        return Finding(check, "fault", found, advice)
    if abs(skew) > MAX_SKEW_S / 2:
        return Finding(check, "warning", found, advice)
    return Finding(check, "ok", found)

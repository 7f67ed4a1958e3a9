"""Whether a machine has room on disk and in shared memory, and its ports free."""

from __future__ import annotations

import errno
import shutil
import socket
from pathlib import Path

import psutil

from recsys.doctor.finding import Finding

GIB = 1 << 30
SPILL_LIMIT = 0.95
"""Share of a full disk from which on Ray writes no more objects to it
(`local_fs_capacity_threshold`)."""
OBJECT_STORE_SHARE = 0.3
"""Share of the memory that Ray's object store takes (`DEFAULT_OBJECT_STORE_MEMORY_PROPORTION`)."""
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
RAY_PROGRAMS = ("gcs_server", "raylet", "ray::", "ray/dashboard", "haproxy")
"""What names and command lines of Ray's own processes hold."""


def check_disk(check: str, folder: Path, min_free_gib: float) -> Finding:
    """Whether the disk of `folder`, which need not be there yet, has room."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    usage = shutil.disk_usage(there)
    found = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f} at {there}"
    if usage.free < min_free_gib * GIB:
        advice = f"free it up to {min_free_gib:g} GiB, or work in another folder"
        return Finding(check, "fault", found, advice)
    if usage.used > SPILL_LIMIT * usage.total:
        advice = f"Ray stops writing objects to a disk that is {SPILL_LIMIT:.0%} full: free it"
        return Finding(check, "warning", found, advice)
    return Finding(check, "ok", found)


def memory_limit(cgroup: Path = CGROUP_MEMORY) -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container."""
    limit = cgroup.read_text().strip() if cgroup.is_file() else "max"
    total = psutil.virtual_memory().total
    return total if limit == "max" else min(total, int(limit))


def check_shared_memory(memory_bytes: int, folder: Path = Path("/dev/shm")) -> Finding:
    """Whether Ray's object store fits into shared memory; where it does not, it is on disk."""
    check, needed = "shared memory", OBJECT_STORE_SHARE * memory_bytes
    size = shutil.disk_usage(folder).total if folder.is_dir() else 0
    found = f"{folder} has {size / GIB:.1f} GiB, the object store takes {needed / GIB:.1f}"
    if size >= needed:
        return Finding(check, "ok", found)
    advice = (
        "Ray would put objects on disk: docker run --shm-size, in Kubernetes an emptyDir of "
        "medium Memory at /dev/shm, or a smaller --object-store-memory"
    )
    return Finding(check, "warning", found, advice)


def check_port(port: int, purpose: str) -> Finding:
    """Whether a TCP port is free, or a process of Ray has it."""
    check = f"port {port} ({purpose})"
    if not _is_taken(port):
        return Finding(check, "ok", "free")
    holder = port_holder(port)
    if any(program in holder for program in RAY_PROGRAMS):
        return Finding(check, "ok", f"Ray has it: {holder}")
    return Finding(check, "fault", f"taken by {holder}", "end that, or choose another port")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # Ports of connections that ended a moment ago are free to a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def port_holder(port: int) -> str:
    """Number, name and program of the process that listens on a port, as far as one may see."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN
        if listens and connection.laddr[1:] == (port,) and connection.pid is not None:
            process = psutil.Process(connection.pid)
            # The first two words: later ones may hold secrets.
            program = " ".join(process.cmdline()[:2])
            return f"process {connection.pid}, {process.name()} ({program})"
    return "a process of another user"

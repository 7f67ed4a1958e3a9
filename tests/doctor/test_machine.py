"""Planted faults of a machine: a full disk, small shared memory, a port that somebody has."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recsys.doctor.machine import (
    GIB,
    check_disk,
    check_port,
    check_shared_memory,
    memory_limit,
)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_a_process_has_is_a_fault_that_names_the_process(taken_port: int):
    found = check_port(taken_port, "the service")
    assert (found.check, found.verdict) == (f"port {taken_port} (the service)", "fault")
    assert f"process {os.getpid()}, " in found.found


def test_a_port_is_free_once_its_server_is_gone():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
    assert check_port(port, "the service").verdict == "ok"


def test_a_port_of_ray_is_as_it_should_be(taken_port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(psutil.Process, "name", lambda _: "gcs_server")
    found = check_port(taken_port, "Ray's head")
    assert found.verdict == "ok"
    assert "gcs_server" in found.found


def test_a_disk_with_too_little_room_is_a_fault_also_for_a_folder_to_be_made(tmp_path: Path):
    folder = tmp_path / "not" / "yet"
    free = shutil.disk_usage(tmp_path).free / GIB
    full = check_disk("disk", folder, 2 * free + 1)
    assert full.verdict == "fault"
    assert str(tmp_path) in full.found
    assert check_disk("disk", folder, 0).verdict in ("ok", "warning")
    assert not folder.exists()


def test_shared_memory_that_the_object_store_does_not_fit_into_is_a_warning(tmp_path: Path):
    size = shutil.disk_usage(tmp_path).total
    assert check_shared_memory(4 * size, tmp_path).verdict == "warning"
    assert check_shared_memory(2 * size, tmp_path).verdict == "ok"
    assert check_shared_memory(1, tmp_path / "none").verdict == "warning"


def test_a_container_has_the_memory_that_its_group_allows(tmp_path: Path):
    total = psutil.virtual_memory().total
    limit = tmp_path / "memory.max"
    for text, expected in {"1000\n": 1000, "max\n": total, f"{2 * total}\n": total}.items():
        limit.write_text(text)
        assert memory_limit(limit) == expected
    assert memory_limit(tmp_path / "none") == total

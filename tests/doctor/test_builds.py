"""A missing compiler and a lock that a killed build left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recsys.doctor.builds import MAX_BUILD_S, check_build_locks, check_compiler

NOW = 1_800_000_000


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    found = tmp_path / "py311_cpu" / "deepspeed_shm_comm" / "lock"
    found.parent.mkdir(parents=True)
    found.touch()
    return found


def test_a_lock_that_a_killed_build_left_is_a_fault_that_names_it(lock: Path, tmp_path: Path):
    os.utime(lock, (NOW, NOW - MAX_BUILD_S - 60))
    found = check_build_locks(tmp_path, NOW)
    assert found.verdict == "fault"
    assert str(lock) in found.found
    assert "31 min old" in found.found


def test_a_build_at_work_and_a_folder_that_is_not_there_are_well(lock: Path, tmp_path: Path):
    os.utime(lock, (NOW, NOW - 5))
    assert check_build_locks(tmp_path, NOW).verdict == "ok"
    assert check_build_locks(tmp_path / "none", NOW).verdict == "ok"


def test_a_path_without_a_compiler_is_a_fault(tmp_path: Path):
    assert check_compiler(str(tmp_path)).verdict == "fault"
    compiler = tmp_path / "g++"
    compiler.touch()
    compiler.chmod(0o755)
    found = check_compiler(str(tmp_path))
    assert (found.verdict, found.found) == ("ok", str(compiler))

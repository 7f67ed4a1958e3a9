"""A token is a secret: it is there, and nobody else can read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.doctor.tokens import check_token, token_in

CLUSTER = {"RAY_ADDRESS": "10.0.0.1:6379"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret\n")
    (tmp_path / ".ray" / "auth_token").chmod(0o600)
    return tmp_path


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620])
def test_a_token_file_that_others_can_use_is_a_fault(home: Path, mode: int):
    (home / ".ray" / "auth_token").chmod(mode)
    found = check_token({**CLUSTER, "RAY_AUTH_MODE": "token"}, home)
    assert found.verdict == "fault"
    assert f"{mode:04o}" in found.found
    assert "chmod 600" in found.advice


def test_a_token_file_of_its_owner_alone_is_well_and_never_shown(home: Path):
    found = check_token({**CLUSTER, "RAY_AUTH_MODE": "token"}, home)
    assert found.verdict == "ok"
    assert "secret" not in found.found
    assert token_in({}, home) == "secret"


def test_the_environment_names_another_file_or_holds_the_token(home: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.write_text("\n")
    named = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(empty)}
    assert check_token(named, home).verdict == "fault"
    assert check_token({**named, "RAY_AUTH_TOKEN": "given"}, home).verdict == "ok"
    assert token_in({**named, "RAY_AUTH_TOKEN": "given"}, home) == "given"


def test_token_mode_without_a_token_is_a_fault(tmp_path: Path):
    assert check_token({"RAY_AUTH_MODE": "token"}, tmp_path).verdict == "fault"


@pytest.mark.parametrize("mode", [{}, {"RAY_AUTH_MODE": "disabled"}])
def test_a_cluster_that_asks_for_no_token_is_a_warning(home: Path, mode: dict[str, str]):
    assert check_token({**CLUSTER, **mode}, home).verdict == "warning"


def test_a_job_with_a_ray_of_its_own_needs_no_token(tmp_path: Path):
    assert check_token({}, tmp_path).verdict == "ok"

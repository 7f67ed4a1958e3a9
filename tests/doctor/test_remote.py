"""Planted faults of an object store and of the clock, behind a proxy that breaks requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.config import StorageConfig
from recsys.doctor.remote import check_clock, check_object_store
from recsys.storage import configure_storage, list_files
from tests.faults import ACCESS_DENIED, FaultProxy, always, faulty_s3

# moto's own server uses names that werkzeug and botocore are about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
RUN = "s3://shop/run"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultProxy]:
    with faulty_s3("shop") as proxy:
        configure_storage(StorageConfig(endpoint=proxy.url, region="us-east-1", max_attempts=1))
        yield proxy
    configure_storage(StorageConfig())


@pytest.fixture
def s3(server: FaultProxy) -> Iterator[FaultProxy]:
    server.begin(None)
    yield server
    server.begin(None)


def test_a_sound_store_is_well_and_is_left_without_a_probe(s3: FaultProxy):
    found = check_object_store(RUN)
    assert found.verdict == "ok", found
    assert {method for method, _ in s3.seen} >= {"GET", "PUT", "DELETE"}
    assert list_files(RUN) == []


@pytest.mark.parametrize(
    ("method", "path", "step", "verdict"),
    [
        ("", "", "list", "fault"),
        ("PUT", "doctor", "write", "fault"),
        ("GET", "/shop/run/.doctor", "read", "fault"),
        ("DELETE", "", "delete", "warning"),
    ],
)
def test_a_refusal_names_the_step_that_was_refused(
    s3: FaultProxy, method: str, path: str, step: str, verdict: str
):
    s3.begin(always(ACCESS_DENIED, method, path))
    found = check_object_store(RUN)
    assert found.verdict == verdict
    assert found.found.startswith(f"{step} failed")
    assert "access is denied" in found.found
    assert f"to {step} below {RUN}" in found.advice


def test_a_missing_bucket_is_a_fault(s3: FaultProxy):
    found = check_object_store("s3://nowhere/run")
    assert found.verdict == "fault"
    assert "no such" in found.found


def test_a_uri_of_no_known_kind_is_a_fault():
    assert check_object_store("azure://box/run").verdict == "fault"


def test_a_folder_of_this_machine_is_a_store_too(tmp_path: Path):
    assert check_object_store(str(tmp_path / "run")).verdict == "ok"
    assert list(tmp_path.glob("run/*")) == []


@pytest.mark.parametrize(
    ("skew", "verdict"), [(0, "ok"), (200, "warning"), (400, "fault"), (-400, "fault")]
)
def test_a_clock_more_than_five_minutes_off_is_a_fault(s3: FaultProxy, skew: int, verdict: str):
    found = check_clock(s3.url, time.time() + skew)
    assert found.verdict == verdict
    assert ("behind" in found.found) == (skew < 0) or skew == 0


def test_a_refusing_server_tells_the_time_as_well(s3: FaultProxy):
    s3.begin(always(ACCESS_DENIED))
    assert check_clock(s3.url, time.time() + 400).verdict == "fault"


def test_a_clock_that_nobody_tells_is_a_warning():
    assert check_clock("http://127.0.0.1:1", time.time()).verdict == "warning"

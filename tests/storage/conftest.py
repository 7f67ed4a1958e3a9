"""An S3 whose requests can be broken on purpose, and waits that are written down, not waited."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from recsys.config import StorageConfig
from recsys.storage import configure_storage
from tests.faults import Fault, FaultProxy, faulty_s3

BUCKET = "vault"
BODY = bytes(range(256)) * 400
RESET = Fault(keep_bytes=5_000)
CUT = Fault(keep_bytes=5_000, reset=False)


@pytest.fixture(scope="package")
def server() -> Iterator[FaultProxy]:
    with faulty_s3(BUCKET) as proxy:
        yield proxy


@pytest.fixture
def s3(server: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy, with settings that reach it and give up soon."""
    server.begin(None)
    configure_storage(settings(server))
    yield server
    server.begin(None)
    configure_storage(StorageConfig())


def settings(proxy: FaultProxy, **changes) -> StorageConfig:
    values = {"endpoint": proxy.url, "max_attempts": 6, "request_timeout_s": 1.0}
    return StorageConfig(**(values | changes))


@pytest.fixture
def place() -> str:
    """A folder of S3 that no other test writes to."""
    return f"s3://{BUCKET}/{uuid4().hex}"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between whole tries of operations so far."""
    seconds: list[float] = []
    monkeypatch.setattr("recsys.storage.sleep", seconds.append)
    return seconds

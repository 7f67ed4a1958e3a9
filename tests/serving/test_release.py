"""Following the live alias: flipped when it is time, refused when it is bad, never in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.registry import Alias, Registry, Version
from recsys.serving.release import Follower
from recsys.storage import StorageError
from tests.test_registry import register

BAD = ValueError("golden requests are answered with 3 of 160 items")


class Clock:
    """Time that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """What serves, in the place of a model: the names of the versions that were flipped to."""

    def __init__(
        self,
        registry: Registry,
        bad: set[str] | None = None,
        fault: Exception = BAD,
    ) -> None:
        self.flipped: list[str] = []
        self.loaded: list[str] = []
        self.bad, self._fault = bad or set(), fault
        self.follower = Follower(registry, "live", self._load, self._flip, poll_s=60, now=Clock())

    def _load(self, version: Version) -> str:
        self.loaded.append(version.name)
        if version.name in self.bad:
            raise self._fault
        return version.name

    def _flip(self, loaded: object) -> None:
        self.flipped.append(str(loaded))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"{tmp_path}/registry")


def live(registry: Registry, version: Version, wait_s: float = 0.0) -> Alias:
    return registry.point("live", version.name, now=100.0, wait_s=wait_s)


def test_an_alias_that_stays_loads_nothing(registry: Registry, tmp_path: Path) -> None:
    replica = Replica(registry)
    replica.follower.step()
    live(registry, register(registry, tmp_path, 1, 0.0))
    replica.follower.step()
    replica.follower.step()
    assert len(replica.loaded) == len(replica.flipped) == 1


def test_a_promoted_version_is_loaded_and_flipped(registry: Registry, tmp_path: Path) -> None:
    replica = Replica(registry)
    versions = [register(registry, tmp_path, epochs, epochs) for epochs in (1, 2)]
    for version in versions:
        live(registry, version)
        replica.follower.step()
    registry.back("live", now=100.0)
    replica.follower.step()
    names = [version.name for version in versions]
    assert replica.flipped == [*names, names[0]]


def test_a_bad_version_is_refused_once_and_the_old_one_stays(
    registry: Registry, tmp_path: Path
) -> None:
    good, bad = (register(registry, tmp_path, epochs, epochs) for epochs in (1, 2))
    replica = Replica(registry, bad={bad.name})
    for version in (good, bad):
        live(registry, version)
        replica.follower.step()
    replica.follower.step()
    assert replica.flipped == [good.name]
    assert replica.loaded == [good.name, bad.name]
    assert replica.follower.refused is not None
    assert replica.follower.refused.version == bad.name
    assert "golden requests" in replica.follower.refused.reason
    live(registry, good)
    replica.follower.step()
    assert replica.follower.refused is None


class Torn(Exception):
    """Such as a tensor file raises: neither a ValueError nor an OSError."""


def test_no_fault_of_a_version_ends_the_following(registry: Registry, tmp_path: Path) -> None:
    bad, good = (register(registry, tmp_path, epochs, epochs) for epochs in (1, 2))
    replica = Replica(registry, bad={bad.name}, fault=Torn("header too large"))
    for version in (bad, good):
        live(registry, version)
        replica.follower.step()
    assert replica.flipped == [good.name]


def test_a_store_that_does_not_answer_is_asked_again(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, tmp_path, 1, 0.0)
    replica = Replica(registry, bad={version.name}, fault=StorageError("503"))
    live(registry, version)
    replica.follower.step()
    assert replica.follower.refused is None
    replica.bad.clear()
    replica.follower.step()
    assert replica.flipped == [version.name]


def test_a_version_waits_for_its_time(registry: Registry, tmp_path: Path) -> None:
    replica = Replica(registry)
    live(registry, register(registry, tmp_path, 1, 0.0), wait_s=3_600.0)
    replica.follower.stop()  # ends the wait, as the end of the replica would
    replica.follower.step()
    assert len(replica.loaded) == 1
    assert replica.flipped == []


def test_a_registry_that_cannot_be_read_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    replica = Replica(registry)
    live(registry, register(registry, tmp_path, 1, 0.0))
    replica.follower.step()
    place = Path(registry.uri) / "aliases" / "live.json"
    place.write_text("{")
    replica.follower.step()
    assert len(replica.flipped) == 1

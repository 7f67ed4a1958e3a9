"""Stores to test: the same contract holds for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.config import StoreConfig
from recsys.store.histories import HistoryStore
from recsys.store.open import open_store
from tests.store.redis_server import RedisServer, redis_server

NOW = 1_800_000_000
Opening = Callable[..., HistoryStore]


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The stores' clock."""
    return Clock()


@pytest.fixture(scope="session")
def redis_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that do not break it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "file", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the histories are, a place of their own each time."""
    if request.param == "redis":
        return request.getfixturevalue("redis_for_all").url
    return "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def opening(url: str, clock: Clock) -> Iterator[Opening]:
    """A function that opens an empty store with some settings."""
    opened: list[HistoryStore] = []

    def open_one(**settings) -> HistoryStore:
        store = open_store(StoreConfig(url=url, **settings), now=clock)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        for user in ("u", "v", "用户"):
            store.delete(user)
        store.close()

"""Stores that do not answer: an error in time that says what to check, and no secret."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys.config import StoreConfig
from recsys.store.histories import HistoryStore, StoredEvent, StoreUnavailable
from recsys.store.open import open_store
from tests.store.redis_server import free_port, redis_server

PASSWORD = "hush-hush"


def event(event_id: str) -> StoredEvent:
    return StoredEvent(event_id, "a", int(time.time()))


def opened(url: str, password: str | None = None, timeout_s: float = 0.3) -> HistoryStore:
    return open_store(StoreConfig(url=url, timeout_s=timeout_s), password)


def assert_unavailable(store: HistoryStore, match: str, within_s: float = 5.0) -> None:
    """Every call fails with this message, and not by waiting for ever."""
    calls = [
        lambda: store.append("u", [event("e")]),
        lambda: store.last("u", 1),
        lambda: store.version("u"),
        lambda: store.delete("u"),
    ]
    start = time.monotonic()
    for call in calls:
        with pytest.raises(StoreUnavailable, match=match) as caught:
            call()
        assert PASSWORD not in str(caught.value)
    assert not store.healthy()
    assert time.monotonic() - start < within_s


def test_a_redis_that_was_killed_is_told_and_used_again_after_its_restart(tmp_path: Path):
    with redis_server(tmp_path) as server:
        store = opened(server.url)
        assert store.append("u", [event("e")]).added == ["e"]
        server.kill()
        assert_unavailable(store, rf"127.0.0.1:{server.port}.*check store.url")
        server.start()
        assert store.healthy()
        assert store.append("u", [event("e"), event("f")]).added == ["e", "f"]
        store.close()


def test_a_redis_that_hangs_is_given_up_after_the_time_out(tmp_path: Path):
    with redis_server(tmp_path) as server:
        store = opened(server.url, timeout_s=0.1)
        store.append("u", [event("e")])
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        assert_unavailable(store, "no answer within 0.1 s")
        os.kill(server.process.pid, signal.SIGCONT)
        assert [e.event_id for e in store.last("u", 9)] == ["e"]
        store.close()


def test_a_redis_with_a_password_needs_it_and_no_message_tells_it(tmp_path: Path):
    with redis_server(tmp_path, "--requirepass", "another") as server:
        for password in (None, PASSWORD):
            store = opened(server.url, password)
            assert_unavailable(store, "check the user and the password")
            store.close()
        store = opened(server.url, "another")
        assert store.append("u", [event("e")]).added == ["e"]
        store.close()


def test_a_store_that_repeats_the_password_does_not_give_it_away(tmp_path: Path):
    renamed = ("--rename-command", "AUTH", "", "--rename-command", "HELLO", "")
    with redis_server(tmp_path, *renamed) as server:
        store = opened(server.url, PASSWORD)
        assert_unavailable(store, "failed")
        store.close()


def test_nobody_at_the_port_is_told_by_each_call_and_not_before():
    store = opened(f"redis://127.0.0.1:{free_port()}")
    assert_unavailable(store, "check store.url, that the server runs")
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@host",
        f"redis://user:{PASSWORD}/more@host:6379/0",
        f"redis://host?password={PASSWORD}",
        "redis://host/name",
        "sqlite://path",
        "postgres://host",
        "path",
    ],
)
def test_a_url_of_another_form_or_with_a_password_is_refused(url: str):
    with pytest.raises(
        ValueError, match="store.url cannot be used: write sqlite:///path"
    ) as caught:
        opened(url)
    assert PASSWORD not in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path):
    (tmp_path / "text").write_text("no database" * 99)
    for path in ("text", "nowhere/store.sqlite"):
        with pytest.raises(StoreUnavailable, match=f"{path} failed .*check that its folder"):
            opened(f"sqlite:///{tmp_path}/{path}")


def test_a_file_that_another_process_holds_is_given_up_after_the_time_out(tmp_path: Path):
    store = opened(f"sqlite:///{tmp_path}/s", timeout_s=0.1)
    other = sqlite3.connect(tmp_path / "s", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"locked.*longer than 0.1 s \(store.timeout_s\)"):
        store.append("u", [event("e")])
    assert store.last("u", 9) == []
    other.execute("ROLLBACK")
    other.close()
    assert store.append("u", [event("e")]).added == ["e"]
    store.close()


def test_a_call_that_breaks_off_leaves_nothing_of_itself(tmp_path: Path):
    store = opened(f"sqlite:///{tmp_path}/s")
    with pytest.raises(ValueError, match="surrogates"):
        store.append("u", [event("good"), event("\ud800")])
    assert store.last("u", 9) == []
    assert store.append("u", [event("good")]).added == ["good"]
    store.close()


WRITER = """
import sys, time
from recsys.config import StoreConfig
from recsys.store.histories import StoredEvent
from recsys.store.open import open_store
store = open_store(StoreConfig(url=sys.argv[1], timeout_s=20.0))
events = [StoredEvent(f"{n % 40}", "a", int(time.time()) - n) for n in range(50)]
print(sum(len(store.append("u", [event]).added) for event in events))
print(*[name for name in ("torch", "ray", "pyarrow", "redis") if name in sys.modules])
"""


def test_processes_that_write_one_file_at_once_lose_and_double_nothing(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/s"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [writer.communicate()[0].splitlines() for writer in writers]
    assert sum(int(lines[0]) for lines in told) == 40
    # A store in a file is light: none of the heavy libraries was imported.
    assert [lines[1] for lines in told] == ["", "", ""]
    store = opened(url)
    assert len(store.last("u", 99)) == len({e.event_id for e in store.last("u", 99)}) == 40
    store.close()


def test_what_is_deleted_cannot_be_read_from_the_files(tmp_path: Path):
    store = opened(f"sqlite:///{tmp_path}/s")
    store.append("u", [StoredEvent("e", "a-secret-item", int(time.time()))])

    def holders() -> list[str]:
        return [p.name for p in tmp_path.iterdir() if b"a-secret-item" in p.read_bytes()]

    assert holders() == ["s-wal"]
    store.delete("u")
    assert holders() == []
    store.close()


def test_users_who_never_come_back_are_purged_by_the_others_calls(tmp_path: Path):
    now = [time.time()]
    config = StoreConfig(url=f"sqlite:///{tmp_path}/s", ttl_days=1, max_events=1)
    store = open_store(config, now=lambda: now[0])
    store.append("gone", [event("a"), event("b")])
    now[0] += 3 * 86_400
    store.append("u", [StoredEvent("e", "a", int(now[0]))])
    store.close()
    with sqlite3.connect(tmp_path / "s") as db:
        assert db.execute("SELECT user_id FROM events").fetchall() == [("u",)]
        assert db.execute("SELECT count(*) FROM pushed_out").fetchone() == (0,)
    db.close()


def test_deleting_a_user_purges_nobody_else(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/s"
    keeper = open_store(StoreConfig(url=url, ttl_days=9_999))
    keeper.append("v", [StoredEvent("old", "a", int(time.time()) - 900 * 86_400)])
    store = open_store(StoreConfig(url=url, ttl_days=1))
    store.delete("u")
    assert len(keeper.last("v", 9)) == 1
    store.close()
    keeper.close()

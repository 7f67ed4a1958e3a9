"""The feedback log: every row arrives once, whatever fails, and `prepare` reads it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.config import FeedbackConfig
from recsys.data.quality import normalise
from recsys.data.sources import INTERACTION_COLUMNS, find_source, read_source
from recsys.experiments.exposures import Exposure, read_exposures, to_table
from recsys.storage import StorageError
from recsys.store.feedback import MOST_BUFFERS, FeedbackLog, FeedbackRefused, LoggedEvent

DAY = 86_400
START = 1_767_225_600
"""2026-01-01T00:00:00Z."""
NEVER = 3_600.0


def config(folder: Path, **more) -> FeedbackConfig:
    if not (folder / "log").is_symlink():
        unblock(folder / "log")
    places = {"uri": str(folder / "log"), "spool": str(folder / "spool"), "max_seconds": NEVER}
    return FeedbackConfig(**places | more)


def event(name: str, day: int = 0, user: str = "用户") -> LoggedEvent:
    return LoggedEvent(user, "a", START + day * DAY, "view", event_id=name)


def exposure(name: str) -> pa.Table:
    shown = Exposure(name, "u", "test", "new", START, "v1", ["a", "b"], [1, 2])
    return to_table([shown])


def arrived(folder: Path) -> Counter[str]:
    """Event ids that the object store has, over all files."""
    files = (folder / "log" / "interactions").rglob("*.parquet")
    return Counter(e for file in files for e in pq.ParquetFile(file).read()["event_id"].to_pylist())


def block(log: Path) -> None:
    """Nothing can be written below this path from now on, which was a link to a folder."""
    (log.parent / "in-the-way").touch()
    _point(log, log.parent / "in-the-way")


def unblock(log: Path) -> None:
    """Writing works again."""
    (log.parent / "folder").mkdir(exist_ok=True)
    _point(log, log.parent / "folder")


def _point(link: Path, target: Path) -> None:
    # At once: a thread that sends meanwhile finds the one or the other.
    new = link.with_name("new-link")
    new.symlink_to(target)
    new.replace(link)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline, "the threads do not work"
        time.sleep(0.005)


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Callable[..., FeedbackLog]]:
    """A function that opens a log below `tmp_path`; it is closed in the end."""
    opened: list[FeedbackLog] = []

    def open_one(**more) -> FeedbackLog:
        opened.append(FeedbackLog(config(tmp_path, **more)))
        return opened[-1]

    yield open_one
    for feedback in opened:
        feedback.close()


def test_prepare_reads_the_events_and_nothing_else(opening, tmp_path: Path):
    feedback = opening()
    full = LoggedEvent("用户", "锤子", START + 5, "购买", 2.5, "e1", "r1", "new", 3)
    feedback.append_events([full, LoggedEvent("v", "b", START + DAY)])
    feedback.append_exposures(exposure("r1"))
    feedback.flush()
    data = str(tmp_path / "log")
    source = find_source(data, "interactions", INTERACTION_COLUMNS)
    rows = normalise(read_source(source)).sort("timestamp").to_dicts()
    kept = ("user_id", "item_id", "timestamp", "event", "value")
    assert [[row[name] for name in kept] for row in rows] == [
        ["用户", "锤子", START + 5, "购买", 2.5],
        ["v", "b", START + DAY, None, None],
    ]
    # An incremental run finds what is new, and what it knows unchanged.
    feedback.append_events([event("later"), event("late", day=1)])
    feedback.flush()
    more = find_source(data, "interactions", INTERACTION_COLUMNS, done=source.files)
    assert set(source.files) < set(more.files)
    assert (more.num_rows, len(more.paths), more.columns) == (2, 2, source.columns)


def test_a_row_lies_below_its_own_day_and_has_what_is_known_of_it(opening, tmp_path: Path):
    feedback = opening()
    last_second = LoggedEvent("u", "a", START + DAY - 1, "view", None, "e", "r", "new", 3)
    feedback.append_events([event("next", day=1), last_second])
    feedback.append_events([event("next2", day=1)])
    feedback.flush()
    files = sorted((tmp_path / "log").rglob("*.parquet"))
    assert [file.parent.name for file in files] == ["date=2026-01-01", "date=2026-01-02"]
    tables = [pq.ParquetFile(file).read() for file in files]
    assert tables[0].to_pylist() == [
        {"user_id": "u", "item_id": "a", "timestamp": START + DAY - 1, "event": "view"}
        | {"value": None, "event_id": "e", "request_id": "r", "variant": "new", "position": 3}
    ]
    assert tables[1]["event_id"].to_pylist() == ["next", "next2"]


def test_exposures_have_a_folder_of_their_own(opening, tmp_path: Path):
    feedback = opening()
    feedback.append_exposures(exposure("r1"))
    feedback.append_exposures(exposure("r2"))
    feedback.append_events([event("e")])
    feedback.flush()
    found = read_exposures(str(tmp_path / "log" / "exposures"))
    assert (found.counts["kept"], found.counts["refused"]) == (2, 0)
    assert arrived(tmp_path) == {"e": 1}


def test_rows_are_written_by_themselves_when_they_are_many_or_old(opening, tmp_path: Path):
    many = opening(max_rows=2)
    many.append_events([event("a")])
    assert many.num_rows == 1
    many.append_events([event("b")])
    wait_for(lambda: arrived(tmp_path) == {"a": 1, "b": 1} and many.spool_bytes == 0)
    assert many.num_rows == 0
    old = opening(max_seconds=0.01)
    old.append_events([event("c")])
    wait_for(lambda: arrived(tmp_path)["c"] == 1)


def test_a_failing_object_store_loses_nothing(opening, tmp_path: Path):
    feedback = opening()
    block(tmp_path / "log")
    feedback.append_events([event("a"), event("b", day=1)])
    with pytest.raises(StorageError):
        feedback.flush()
    assert (feedback.num_rows, feedback.spool_bytes > 0) == (0, True)
    unblock(tmp_path / "log")
    feedback.append_events([event("c")])
    feedback.flush()
    assert arrived(tmp_path) == {"a": 1, "b": 1, "c": 1}
    assert feedback.spool_bytes == 0
    assert not list((tmp_path / "spool").rglob("part-*"))


def test_a_file_that_arrived_is_never_written_again(opening, tmp_path: Path):
    feedback = opening()
    feedback.append_events([event("a")])
    feedback.flush()
    file = next((tmp_path / "log").rglob("*.parquet"))
    before = file.stat().st_mtime_ns
    # As it is when a process ends between the sending and the deletion.
    left = tmp_path / "spool" / file.relative_to(tmp_path / "log")
    shutil.copy(file, tmp_path / "copy").rename(left)
    feedback.flush()
    assert (file.stat().st_mtime_ns, left.exists()) == (before, False)


def test_a_full_spool_refuses_rows_until_it_was_sent(opening, tmp_path: Path):
    block(tmp_path / "log")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "large.parquet").write_bytes(bytes(1 << 20))
    feedback = opening(max_spool_mb=1)
    with pytest.raises(FeedbackRefused, match=r"spool is full with 1048576 bytes.*max_spool_mb"):
        feedback.append_events([event("a")])
    unblock(tmp_path / "log")
    feedback.flush()
    feedback.append_events([event("b")])
    feedback.flush()
    assert arrived(tmp_path) == {"b": 1}


def test_what_the_disk_does_not_take_stays_in_memory_and_is_written_once(opening, tmp_path: Path):
    feedback = opening()
    day = tmp_path / "spool" / "interactions" / "date=2026-01-02"
    day.parent.mkdir()
    day.write_text("in the way")
    feedback.append_events([event("a"), event("b", day=1), event("c", day=2)])
    feedback.flush()
    assert (feedback.num_rows, arrived(tmp_path)) == (1, {"a": 1, "c": 1})
    day.unlink()
    feedback.flush()
    assert (feedback.num_rows, arrived(tmp_path)) == (0, {"a": 1, "b": 1, "c": 1})


def test_memory_is_bounded_where_the_disk_takes_nothing(opening, tmp_path: Path):
    feedback = opening(max_rows=2)
    shutil.rmtree(tmp_path / "spool")
    (tmp_path / "spool").write_text("in the way")
    for n in range(MOST_BUFFERS):
        feedback.append_events([event(f"{n}"), event(f"{n}'")])
    with pytest.raises(FeedbackRefused, match="20 rows of feedback wait for the spool's disk"):
        feedback.append_events([event("one more")])
    (tmp_path / "spool").unlink()
    feedback.flush()
    assert arrived(tmp_path).total() == 2 * MOST_BUFFERS


def test_replicas_at_once_overwrite_nothing_and_may_share_a_spool(opening, tmp_path: Path):
    logs = [opening(max_rows=5), opening(max_rows=5), opening(spool=str(tmp_path / "other"))]
    barrier = threading.Barrier(6)

    def work(n: int) -> None:
        barrier.wait()
        for k in range(20):
            logs[n % 3].append_events([event(f"{n}-{k}", day=k % 2)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    for feedback in logs:
        feedback.close()
    assert arrived(tmp_path) == {f"{n}-{k}": 1 for n in range(6) for k in range(20)}
    assert not [*(tmp_path / "spool").rglob("part-*"), *(tmp_path / "other").rglob("part-*")]


def test_closing_sends_everything_and_refuses_the_rest(opening, tmp_path: Path):
    feedback = opening()
    feedback.append_events([event("a")])
    feedback.close()
    assert arrived(tmp_path) == {"a": 1}
    with pytest.raises(FeedbackRefused, match="closed"):
        feedback.append_events([event("b")])


@pytest.mark.parametrize("timestamp", [-1, 1_767_225_600_000])
def test_a_row_that_no_day_has_is_refused_and_spoils_no_other(opening, tmp_path, timestamp: int):
    feedback = opening()
    feedback.append_events([event("a")])
    with pytest.raises(ValueError, match="timestamp of feedback is missing or not in"):
        feedback.append_events([event("b"), LoggedEvent("u", "a", timestamp)])
    feedback.append_exposures(exposure("r"))
    with pytest.raises(ValueError, match="exposures must have the columns"):
        feedback.append_exposures(exposure("r").drop_columns("scores"))
    feedback.flush()
    assert arrived(tmp_path) == {"a": 1}


def test_a_uri_that_cannot_be_is_told_at_once(tmp_path: Path):
    with pytest.raises(ValueError, match="give a path, s3://bucket/path"):
        FeedbackLog(config(tmp_path, uri="ftp://shop"))


CRASH = """
import os, sys
from recsys.config import FeedbackConfig
from recsys.storage import StorageError
from recsys.store.feedback import FeedbackLog, LoggedEvent
log = FeedbackLog(FeedbackConfig.model_validate_json(sys.argv[1]))
log.append_events([LoggedEvent("u", "a", 1, event_id="spooled")])
try:
    log.flush()
except StorageError:
    log.append_events([LoggedEvent("u", "a", 1, event_id="in memory")])
    print(*[name for name in ("torch", "ray") if name in sys.modules], flush=True)
    os._exit(1)
"""


def test_a_crash_loses_what_was_in_memory_and_no_more(opening, tmp_path: Path):
    block(tmp_path / "log")
    arguments = [sys.executable, "-c", CRASH, config(tmp_path).model_dump_json()]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "\n")
    unblock(tmp_path / "log")
    opening().close()
    assert arrived(tmp_path) == {"spooled": 1}


STEP = st.sampled_from(["append", "late", "flush", "block", "unblock", "crash"])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEP, max_size=10))
def test_whatever_happens_each_row_arrives_once(tmp_path_factory, steps: list[str]):
    folder = tmp_path_factory.mktemp("feedback")
    feedback, taken, blocked = FeedbackLog(config(folder)), 0, False
    for step in [*steps, "unblock", "flush"]:
        if step in ("append", "late"):
            feedback.append_events([event(str(taken), day=taken if step == "late" else 0)])
            taken += 1
        elif step == "block":
            block(folder / "log")
            blocked = True
        elif step == "unblock":
            unblock(folder / "log")
            blocked = False
        elif step == "crash" and feedback.num_rows == 0:
            feedback.close()
            feedback = FeedbackLog(config(folder))
        elif step == "flush":
            try:
                feedback.flush()
            except StorageError:
                assert blocked
    feedback.close()
    assert arrived(folder) == {str(n): 1 for n in range(taken)}
    shutil.rmtree(folder)

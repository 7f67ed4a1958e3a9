"""Logged events become raw interactions once, in the schema that is there, with no row lost."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config import FeedbackConfig
from recsys.data.feedback import take_in_feedback
from recsys.data.sources import INTERACTION_COLUMNS, find_source, list_files, read_source
from recsys.store.feedback import FeedbackLog, LoggedEvent

RAW = {
    "user_id": pa.array(["u1", "u2"]),
    "item_id": pa.array(["i1", "商品"]),
    "timestamp": pa.array([1_769_000_000, 1_769_000_001], pa.int64()),
    "event": pa.array(["view", "purchase"]),
    "value": pa.array([None, 9.5], pa.float32()),
    "order": pa.array([0, 1], pa.int32()),
}
DAY = 1_769_817_600
EVENTS = [
    LoggedEvent("u1", "商品", DAY, "view", event_id="e1", request_id="r1", position=1),
    LoggedEvent("u3", "i1", DAY + 5, "purchase", 3.25),
    LoggedEvent("u3", "i2", DAY + 86_400),
]


def write_raw(data: Path, **columns: pa.Array) -> Path:
    (data / "interactions").mkdir(parents=True)
    pq.write_table(pa.table({**RAW, **columns}), data / "interactions" / "2026-01.parquet")
    return data


def log_events(place: Path, events: list[LoggedEvent]) -> Path:
    log = FeedbackLog(FeedbackConfig(uri=str(place), spool=str(place.parent / "spool")))
    log.append_events(events)
    log.close()
    return place


def test_the_rows_of_the_services_log_are_interactions_beside_the_others(tmp_path: Path):
    data = write_raw(tmp_path / "data")
    taken = take_in_feedback(str(log_events(tmp_path / "log", EVENTS)), str(data))
    assert [name.split("/")[0] for name in sorted(taken)] == [
        *("date=2026-01-31", "date=2026-02-01")
    ]
    source = find_source(str(data), "interactions", INTERACTION_COLUMNS)
    rows = read_source(source).sort_by("timestamp").to_pylist()
    assert len(rows) == len(RAW["user_id"]) + len(EVENTS)
    names = ("user_id", "item_id", "timestamp", "event", "value")
    logged = [asdict(event) for event in EVENTS]
    assert [{n: row[n] for n in names} for row in rows[2:]] == [
        {n: event[n] for n in names} for event in logged
    ]
    assert [row["order"] for row in rows[2:]] == [None] * 3


def test_a_file_is_taken_in_once_and_left_as_it_is(tmp_path: Path):
    data, log = write_raw(tmp_path / "data"), tmp_path / "log"
    take_in_feedback(str(log_events(log, EVENTS[:1])), str(data))
    before = list_files(str(data), "interactions")
    assert take_in_feedback(str(log), str(data)) == []
    assert len(take_in_feedback(str(log_events(log, EVENTS[1:2])), str(data))) == 1
    assert set(before) < set(list_files(str(data), "interactions"))


def test_times_that_are_arrow_timestamps_stay_the_same_moments(tmp_path: Path):
    times = pa.array([datetime(2026, 1, 21, tzinfo=UTC)] * 2, pa.timestamp("ms", tz="UTC"))
    data = write_raw(tmp_path / "data", timestamp=times)
    take_in_feedback(str(log_events(tmp_path / "log", EVENTS[:1])), str(data))
    (copy,) = (data / "interactions" / "feedback").rglob("*.parquet")
    assert pq.read_table(copy)["timestamp"][0].as_py() == datetime(2026, 1, 31, tzinfo=UTC)


def test_ids_that_do_not_fit_are_refused_and_the_file_is_named(tmp_path: Path):
    data = write_raw(tmp_path / "data", user_id=pa.array([1, 2], pa.int64()))
    with pytest.raises(ValueError, match=r"date=2026-01-31/part.*'user_id' cannot be int64"):
        take_in_feedback(str(log_events(tmp_path / "log", EVENTS[:1])), str(data))
    assert len(list_files(str(data), "interactions")) == 1


def test_a_damaged_file_is_named(tmp_path: Path):
    data, log = write_raw(tmp_path / "data"), tmp_path / "log" / "interactions" / "date=2026-01-31"
    log.mkdir(parents=True)
    (log / "part-1.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match=r"part-1\.parquet"):
        take_in_feedback(str(tmp_path / "log"), str(data))


def test_interactions_in_one_file_say_what_to_do(tmp_path: Path):
    pq.write_table(pa.table(RAW), tmp_path / "interactions.parquet")
    with pytest.raises(ValueError, match="move it to interactions/"):
        take_in_feedback(str(log_events(tmp_path / "log", EVENTS)), str(tmp_path))

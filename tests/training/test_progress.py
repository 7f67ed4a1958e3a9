"""What is logged of a run, and where it can be read while it runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from recsys.training import loop
from recsys.training.checkpoint import Log
from recsys.training.cursor import Cursor
from recsys.training.progress import LAPS, Journal, line
from recsys.training.run import Run
from recsys.training.trackers import ROWS, TENSORBOARD, open_trackers
from tests.training.test_memory import DEEPSPEED_WARNINGS
from tests.training.tiny_run import make_run

pytestmark = pytest.mark.filterwarnings(*DEEPSPEED_WARNINGS)


def trained(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """The log of a whole run."""
    logs: list[Log] = []
    monkeypatch.setattr(loop, "start_run", lambda job: run)
    monkeypatch.setattr(loop, "restore", lambda engine: (Cursor(), []))
    monkeypatch.setattr(loop, "save", lambda engine, cursor, log, metrics: logs.append(list(log)))
    monkeypatch.setattr("recsys.training.progress.run_folder", lambda: folder)
    loop.train_loop(run.job.model_dump(mode="json"))
    return logs[-1]


def scalars(folder: Path) -> dict[str, list[int]]:
    """The steps of each scalar in TensorBoard's event files, read as the format says."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            size = int.from_bytes(content[place : place + 8], "little")
            body = content[place + 12 : place + 12 + size]
            told = int.from_bytes(content[place + 12 + size : place + 16 + size], "little")
            assert masked_crc32c(body) == told
            event = Event.FromString(body)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
            place += 16 + size
    return found


@pytest.mark.usefixtures("alone")
class TestJournal:
    @pytest.fixture
    def log(self, dataset, tmp_path, monkeypatch) -> Log:
        return trained(make_run(dataset, log_every=2), tmp_path, monkeypatch)

    def test_a_row_every_so_many_steps_and_one_an_epoch(self, log):
        assert [(row["step"], row["epoch"]) for row in log if "loss" in row] == [
            (2, 0),
            (4, 1),
            (6, 1),
        ]
        assert [(row["step"], row["epoch"]) for row in log if "loss" not in row] == [(3, 0), (6, 1)]

    def test_counts_are_those_of_the_batches(self, log, dataset):
        steps = [r.batch for r in make_run(dataset).batches.epochs(Cursor(), 1) if r is not None]
        first = log[0]
        events = sum(int(batch.lengths.sum()) for batch in steps[:2])
        places = sum(batch.item_indexes.numel() for batch in steps[:2])
        assert first["padding_share"] == pytest.approx(1 - events / places)
        assert first["events_per_second"] / first["windows_per_second"] == pytest.approx(
            events / 12
        )
        assert first["items_encoded"] == 50
        assert first["bad_steps"] == 0
        assert first["grad_norm"] > 0

    def test_the_parts_of_a_step_are_no_more_than_its_time(self, log):
        steps, windows = {2: 2, 4: 1, 6: 2}, {2: 12, 4: 6, 6: 9}  # of each row's epoch
        for row in [row for row in log if "loss" in row]:
            seconds = windows[row["step"]] / row["windows_per_second"]
            parts = sum(row[f"{name}_ms"] for name in LAPS) * steps[row["step"]] / 1_000
            assert 0 < parts <= seconds
            assert 0 <= row["data_wait_share"] < 1
            assert row["memory_gb"] > 0.01

    def test_utilization_is_not_told_of_a_cpu(self, log):
        assert not any("model_flops_utilization" in row for row in log)

    def test_the_file_is_the_log_and_each_number_is_a_scalar(self, log, tmp_path):
        assert [json.loads(row) for row in (tmp_path / ROWS).read_text().splitlines()] == log
        found = scalars(tmp_path / TENSORBOARD)
        assert found["loss"] == [2, 4, 6]
        assert set(found) == {name for row in log for name in row} - {"step"}

    def test_what_is_not_finite_stays_out(self, dataset, tmp_path, monkeypatch):
        monkeypatch.setattr("recsys.training.progress.run_folder", lambda: tmp_path)
        with Journal(make_run(dataset), Cursor(), log := []) as journal:
            journal.epoch(Cursor(1, 0, 3), {"valid_loss": 2.0, "valid_rmse": math.nan})
        assert log == [{"step": 3, "epoch": 0, "valid_loss": 2.0}]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("step", "told"), [(0, False), (6, True)])
def test_a_run_that_goes_on_says_from_where(dataset, tmp_path, monkeypatch, capsys, step, told):
    run = make_run(dataset, epochs=1)
    start = Cursor(epoch=1, step=step) if step else Cursor()
    monkeypatch.setattr(loop, "start_run", lambda job: run)
    monkeypatch.setattr(loop, "restore", lambda engine: (start, []))
    monkeypatch.setattr(loop, "save", lambda engine, cursor, log, metrics: None)
    monkeypatch.setattr("recsys.training.progress.run_folder", lambda: tmp_path)
    loop.train_loop(run.job.model_dump(mode="json"))
    assert ("going on from step 6\n" in capsys.readouterr().out) is told


def test_a_run_that_goes_on_has_no_row_twice(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1.0} for step in (2, 4, 6)]
    for log in ([], rows[:1]):  # interrupted after step 6, and gone on with from step 2
        trackers = open_trackers(tmp_path, log, 2 if log else 0)
        for row in rows[len(log) :]:
            for tracker in trackers:
                tracker.write(row)
        for tracker in trackers:
            tracker.close()
    assert [json.loads(row) for row in (tmp_path / ROWS).read_text().splitlines()] == rows


def test_a_line_tells_the_time_that_is_left() -> None:
    row = {
        "step": 100,
        "loss": 2.5,
        "grad_norm": 0.75,
        "windows_per_second": 1234.0,
        "events_per_second": 9876.5,
        "data_wait_share": 0.034,
        "memory_gb": 1.25,
        "seconds_left": 3_723.4,
    }
    told = line(row, 700)
    assert told.startswith("step 100/700  loss 2.500  grad 0.75  1234 windows/s")
    assert told.endswith("data 3%  1.2 GB  1:02:03 left")
    assert "MFU 41.0%" in line({**row, "model_flops_utilization": 0.41}, 700)

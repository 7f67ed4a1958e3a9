"""What judges the faults, without Ray: the report, the comparison of runs, the ill workers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.chaos import sick
from benchmarks.chaos.report import Outcome, run_all
from benchmarks.chaos.scene import Truth
from benchmarks.chaos.trained import Training, until
from recsys.training import checkpoint, loop

GOOD = Outcome(0.5, 2.0, 3, True, "said")


def told(capsys: pytest.CaptureFixture[str], *outcomes: Outcome) -> tuple[int, dict]:
    """Exit code and the JSON of the last line."""
    with pytest.raises(SystemExit) as ended:
        run_all(((f"F{n}", lambda o=o: o) for n, o in enumerate(outcomes)), harm="steps lost")
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out.splitlines()[-1])


def test_one_that_did_not_pass_fails_the_suite_and_one_that_was_not_run_does_not(capsys):
    code, found = told(capsys, GOOD, replace(GOOD, passed=None))
    assert (code, found["F0"]["steps_lost"], found["F1"]["passed"]) == (0, 3, None)
    assert told(capsys, GOOD, replace(GOOD, passed=False))[0] == 1


def test_a_wait_without_end_is_a_failure_and_the_next_fault_follows(capsys):
    def hangs() -> Outcome:
        until(lambda: False, "the end of time", limit_s=0)
        return GOOD

    with pytest.raises(SystemExit) as ended:
        run_all([("F1", hangs), ("F2", lambda: GOOD)], harm="wrong")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code == 1
    assert "not: the end of time" in found["F1"]["said"]
    assert found["F2"]["passed"]


RIGHT = Truth([(1.0, 2.5), (2.0, 2.25)], {"w": torch.tensor([1.0, -1.0])})


@pytest.mark.parametrize(
    ("other", "apart"),
    [
        (RIGHT, 0.0),
        (replace(RIGHT, losses=[(1.0, 2.5), (2.0, 2.25 + 2e-6)]), 2e-6),
        (replace(RIGHT, weights={"w": torch.tensor([1.0, -1.5])}), 0.5),
        (replace(RIGHT, losses=[(1.0, 2.5)]), math.inf),
        (replace(RIGHT, losses=[(1.0, 2.5), (1.0, 2.5), (2.0, 2.25)]), math.inf),
    ],
    ids=["the same", "a loss", "a weight", "a step missing", "a step twice"],
)
def test_runs_are_as_far_apart_as_their_furthest_loss_or_weight(other, apart):
    assert RIGHT.distance(other) == pytest.approx(apart, rel=1e-3)


def test_what_is_not_finite_is_found_in_losses_and_weights():
    assert RIGHT.finite
    assert not replace(RIGHT, losses=[(1.0, math.nan)]).finite
    assert not replace(RIGHT, weights={"w": torch.tensor([math.inf])}).finite


def losses_of(rank: int, count: int) -> list[float]:
    run = SimpleNamespace(rank=rank)
    return [loop.training_loss(run, None).item() for _ in range(count)]


@pytest.mark.parametrize("rank", [0, sick.SICK_RANK])
def test_one_rank_has_nan_at_the_losses_it_was_told(monkeypatch, rank):
    monkeypatch.setattr(loop, "training_loss", lambda run, scored: torch.tensor(2.0))
    sick.nan("1+2,4+1")
    found = [call for call, loss in enumerate(losses_of(rank, 6)) if math.isnan(loss)]
    assert found == ([1, 2, 4] if rank == sick.SICK_RANK else [])


def test_memory_is_eaten_once_and_not_by_a_run_that_goes_on(monkeypatch, tmp_path: Path):
    for eaten in (1, 0):
        monkeypatch.setattr(loop, "training_loss", lambda run, scored: torch.tensor(2.0))
        sizes: list[int] = []
        monkeypatch.setattr(sick.torch, "ones", lambda size, seen=sizes: seen.append(size))
        sick.eats_memory(f"1,0.5,{tmp_path / 'ate'}")
        losses_of(sick.SICK_RANK, 3)
        assert sizes == [2**27] * eaten  # of four bytes each: half a GiB


def test_only_the_ill_ranks_upload_of_that_step_is_slow(monkeypatch):
    uploaded, slept = [], []
    monkeypatch.setattr(sick, "upload_part", lambda *given: uploaded.append(given))
    monkeypatch.setattr(sick.time, "sleep", slept.append)
    monkeypatch.setattr(checkpoint, "upload_part", None)
    sick.slow_upload("80")
    for rank, step in ((0, 80), (1, 60), (1, 80)):
        checkpoint.upload_part(Path(), "place", rank, SimpleNamespace(step=step))
    assert (len(uploaded), slept) == (3, [sick.SLEEP_S])


def test_where_a_run_went_on_is_read_from_what_it_printed(tmp_path: Path):
    run = Training("nowhere", tmp_path, [])
    run.printed = [
        (1.0, "(worker) going on from step 80"),
        (2.0, "x"),
        (3.0, "going on from step 9"),
    ]
    run.steps = [(1.0, 5), (2.0, 90), (3.0, 9)]
    assert run.resumed() == [(1.0, 80), (3.0, 9)]
    assert (run.step, run.said("x"), run.said("y")) == (90, 2.0, None)

"""A loss that goes bad: steps left out, the way back to a checkpoint, and the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from recsys.config import TrainingConfig
from recsys.training import anomaly, loop, progress
from recsys.training.anomaly import ENOUGH, NATS, ROLLBACK, Diverged, Watch, roll_back
from recsys.training.checkpoint import Log
from recsys.training.cursor import Cursor
from recsys.training.optimizer import watch_plain_optimizer
from recsys.training.run import Run
from recsys.training.step import mean_over_ranks, training_loss
from recsys.training.zero import start_engine
from tests.training.test_memory import DEEPSPEED_WARNINGS
from tests.training.tiny_run import make_run, weights_of

pytestmark = pytest.mark.filterwarnings(*DEEPSPEED_WARNINGS)

STAGES = [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32"), (2, "bf16"), (3, "fp32"), (3, "bf16")]


def watch(max_bad_steps: int = 3, **changes: Any) -> Watch:
    return Watch(TrainingConfig(max_bad_steps=max_bad_steps, log_every=1, **changes))


def used_to(losses: list[float]) -> Watch:
    """A watch that has seen these."""
    found = watch()
    for step, loss in enumerate(losses):
        found.saw(step, torch.tensor(loss), applied=True)
    return found


class TestWatch:
    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_what_is_not_finite_is_no_loss_to_learn_from(self, loss):
        assert math.isnan(watch().guard(torch.tensor(loss)))
        assert watch().guard(torch.tensor(1e30)) == 1.0

    def test_a_loss_explodes_5_nats_above_the_median_of_quiet_ones(self):
        seen = used_to([3.0] * 30 + [4.0] * (ENOUGH - 30))
        assert seen.ceiling == pytest.approx(3.0 + NATS)
        assert seen.guard(torch.tensor(7.9)) == 1.0
        assert math.isnan(seen.guard(torch.tensor(8.1)))

    def test_where_losses_spread_widely_it_takes_10_spreads(self):
        # Half are 2 and half 6: the median is 4 and each lies 2 from it.
        seen = used_to([2.0, 6.0] * (ENOUGH // 2))
        assert seen.ceiling == pytest.approx(4.0 + 10 * 1.4826 * 2.0)

    def test_before_there_are_enough_losses_none_explodes(self):
        assert used_to([3.0] * (ENOUGH - 1)).guard(torch.tensor(1e6)) == 1.0

    @pytest.mark.parametrize("seed", range(5))
    def test_a_run_that_learns_with_noise_never_explodes(self, seed):
        random, seen = np.random.default_rng(seed), watch()
        for step in range(1_000):
            loss = torch.tensor(2.0 + 7.0 * math.exp(-step / 200) + random.standard_t(3) * 0.3)
            assert seen.guard(loss) == 1.0
            seen.saw(step, loss, applied=True)

    def test_as_many_bad_steps_in_a_row_as_may_be_and_one_more(self):
        seen = watch(max_bad_steps=2)
        for applied in (False, False, True, False, False):
            seen.saw(7, torch.tensor(math.nan), applied)
        assert not seen.trusts
        assert seen.num_bad == 4
        with pytest.raises(Diverged, match="loss is nan at step 8"):
            seen.saw(8, torch.tensor(math.nan), applied=False)

    def test_a_finite_loss_of_a_step_left_out_is_told_with_the_reason(self):
        with pytest.raises(Diverged, match="loss is 2 at step 5, and its gradient is not finite"):
            watch(max_bad_steps=0).saw(5, torch.tensor(2.0), applied=False)

    def test_fp16_may_seek_its_scale_as_long_as_it_likes(self):
        seen = watch(max_bad_steps=0, precision="fp16", use_gpu=True)
        for step in range(20):
            seen.saw(step, torch.tensor(2.0), applied=False)
        assert seen.trusts
        with pytest.raises(Diverged):
            seen.saw(20, torch.tensor(math.nan), applied=False)

    def test_validation_is_believed_only_where_it_is_finite(self):
        watch().judge(9, {})
        watch().judge(9, {"valid_loss": 50.0, "valid_rmse": math.nan})
        with pytest.raises(Diverged, match="valid_loss is nan at step 9"):
            watch().judge(9, {"valid_loss": math.nan})

    def test_after_a_bad_step_validation_has_to_be_as_usual(self):
        seen = used_to([3.0] * ENOUGH)
        seen.judge(9, {"valid_loss": 8.5})
        seen.saw(ENOUGH, torch.tensor(9.0), applied=False)
        seen.judge(9, {"valid_loss": 7.5})
        for metrics in ({"valid_loss": 8.5}, {}):
            with pytest.raises(Diverged, match="the last step of 9 was left out"):
                seen.judge(9, metrics)


def trained(stage: int, precision: Any, bad: set[int], num_steps: int = 4) -> list[torch.Tensor]:
    """The answers of a small model after each step; the steps in `bad` have a loss of NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    config = TrainingConfig(
        num_workers=1, global_batch_size=2, zero_stage=stage, precision=precision
    )
    engine = start_engine(model, config, 20)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    x, found = torch.randn(5, 3).to(kind), []
    for step in range(num_steps):
        loss = engine(x).float().square().mean()
        engine.backward(loss * watch().guard(torch.tensor(math.nan if step in bad else 1.0)))
        engine.step()
        assert engine.was_step_applied() is (step not in bad)
        found.append(engine(x).detach().float())
    return found


@pytest.mark.usefixtures("alone")
class TestStepsLeftOut:
    @pytest.mark.parametrize(("stage", "precision"), STAGES)
    def test_a_bad_step_leaves_no_trace_in_weights_optimizer_or_schedule(self, stage, precision):
        with_bad = trained(stage, precision, bad={1, 2}, num_steps=5)
        without = trained(stage, precision, bad=set(), num_steps=3)
        assert torch.equal(with_bad[0], with_bad[2])
        for found, right in zip([with_bad[0], *with_bad[3:]], without, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-7)
        assert not torch.equal(without[0], without[1])

    def test_stage_0_clips_and_measures_as_zero_does(self):
        weight = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        watch_plain_optimizer(optimizer, max_norm=1.0)
        weight.grad = torch.tensor([3.0, 4.0])
        optimizer.step()
        assert weight.tolist() == pytest.approx([-0.6, -0.8], rel=1e-5)
        assert optimizer._global_grad_norm == pytest.approx(5.0)


def rank(number: int, folder: str) -> None:
    """Rank 1 alone has a loss of NaN in step 1."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2
    )
    found: dict[int, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOCAL_RANK", str(number))
        for stage in (0, 2, 3):
            found[stage] = steps_of_a_rank(number, stage)
    torch.save(found, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def steps_of_a_rank(number: int, stage: int) -> list[tuple[bool, float, torch.Tensor]]:
    torch.manual_seed(0)
    config = TrainingConfig(num_workers=2, global_batch_size=2, zero_stage=stage, precision="fp32")
    engine, x, found = start_engine(nn.Linear(3, 1), config, 20), torch.ones(1, 3), []
    for step in range(3):
        loss = engine(x).square().mean() * (math.nan if number and step == 1 else 1.0)
        mean = mean_over_ranks([loss], [1.0 + 2.0 * number])
        engine.backward(loss * watch().guard(mean))
        engine.step()
        found.append((engine.was_step_applied(), mean.item(), engine(x).detach()))
    return found


def test_all_ranks_leave_a_step_out_when_one_has_a_bad_loss(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(rank, (str(tmp_path),), nprocs=2)
    zero, one = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    for stage, steps in zero.items():
        applied, means, answers = zip(*steps, strict=True)
        assert applied == (True, False, True), stage
        assert math.isnan(means[1])
        assert torch.equal(answers[0], answers[1])
        assert not torch.equal(answers[1], answers[2])
        assert [torch.equal(a, b[2]) for a, b in zip(answers, one[stage], strict=True)] == [
            True
        ] * 3


class Shelf:
    """The run's checkpoints, in a folder and without Ray."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.saved = folder, list[tuple[Cursor, Log]]()

    def save(self, engine: Any, cursor: Cursor, log: Log, metrics: dict[str, float]) -> None:
        engine.save_checkpoint(str(self._folder), tag=f"step_{cursor.step}")
        self.saved.append((cursor, json.loads(json.dumps(log))))

    def restore(self, engine: Any) -> tuple[Cursor, Log]:
        if not self.saved:
            return Cursor(), []
        cursor, log = self.saved[-1]
        engine.load_checkpoint(str(self._folder), tag=f"step_{cursor.step}")
        return cursor, list(log)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf(tmp_path / "shelf")
    monkeypatch.setattr(loop, "save", shelf.save)
    monkeypatch.setattr(loop, "restore", shelf.restore)
    monkeypatch.setattr(anomaly, "restore", shelf.restore)
    monkeypatch.setattr(progress, "run_folder", lambda: tmp_path / "run")
    return shelf


def train(run: Run, monkeypatch: pytest.MonkeyPatch, bad: list[bool]) -> None:
    """`train_loop` of this run; `bad` says of each step made, again or not, if its loss is NaN."""
    left = iter(bad)

    def loss_of(run: Run, scored: Any) -> torch.Tensor:
        return training_loss(run, scored) * (math.nan if next(left, False) else 1.0)

    monkeypatch.setattr(loop, "training_loss", loss_of)
    monkeypatch.setattr(loop, "start_run", lambda job: run)
    loop.train_loop(run.job.model_dump(mode="json"))


@pytest.mark.usefixtures("alone")
class TestWayBack:
    def test_a_run_goes_back_with_half_the_rate_and_ends(self, dataset, shelf, monkeypatch):
        run = make_run(dataset, max_bad_steps=1, checkpoint_every=1, warmup_share=1.0)
        train(run, monkeypatch, [False, True, True])
        assert [cursor.step for cursor, _ in shelf.saved] == [1, 2, 3, 3, 4, 5, 6, 6]
        log = shelf.saved[-1][1]
        rates = {row["step"]: row["learning_rate"] for row in log if "learning_rate" in row}
        # Six steps of warm-up: after step n the rate is (n + 1) / 6 of the peak.
        peak = run.job.training.learning_rate
        assert rates[1] == pytest.approx(peak * 2 / 6)
        assert rates[2] == pytest.approx(peak * 3 / 6 / 2)
        assert rates[4] == pytest.approx(peak * 5 / 6 / 2)
        assert [row[ROLLBACK] for row in log if ROLLBACK in row] == [1]
        assert all(math.isfinite(loss) for row in log for loss in row.values())

    def test_the_rate_stays_halved_when_the_run_starts_again(self, dataset, shelf, monkeypatch):
        run = make_run(dataset, max_bad_steps=0, checkpoint_every=1, warmup_share=0.0)
        train(run, monkeypatch, [False, True])
        again = make_run(dataset, max_bad_steps=0, warmup_share=0.0)
        _, log = shelf.restore(again.engine)
        assert again.engine.get_lr() == run.engine.get_lr()
        peak = run.job.training.learning_rate
        assert set(again.engine.lr_scheduler.base_lrs) == {peak / 2}
        assert again.engine.optimizer.param_groups[0]["lr"] == run.engine.get_lr()[0]
        with pytest.raises(FloatingPointError, match="the run went back 1 times, so it stops"):
            roll_back(make_run(dataset, max_rollbacks=1), log, Diverged("loss is nan"))

    def test_after_the_last_way_back_it_stops_and_says_what_to_do(
        self, dataset, shelf, monkeypatch
    ):
        run = make_run(dataset, max_bad_steps=0, checkpoint_every=1, max_rollbacks=2)
        with pytest.raises(FloatingPointError, match=r"nan at step 1;.*2 times.*learning_rate"):
            train(run, monkeypatch, [False, True, True, True])
        assert [cursor.step for cursor, _ in shelf.saved] == [1]

    def test_without_a_checkpoint_it_stops(self, dataset, shelf, monkeypatch):
        run = make_run(dataset, max_bad_steps=1)
        with pytest.raises(FloatingPointError, match=r"nan at step 1; there is no checkpoint"):
            train(run, monkeypatch, [True, True])
        assert not shelf.saved

    def test_no_checkpoint_is_made_after_a_bad_step(self, dataset, shelf, monkeypatch):
        run = make_run(dataset, max_bad_steps=3, checkpoint_every=1, epochs=1)
        train(run, monkeypatch, [False, True, False])
        assert [cursor.step for cursor, _ in shelf.saved] == [1, 3, 3]

    def test_an_epoch_that_ends_badly_and_unjudged_is_made_again(self, dataset, shelf, monkeypatch):
        run = make_run(dataset, max_bad_steps=3, checkpoint_every=1, epochs=1)
        train(run, monkeypatch, [False, False, True])
        assert [cursor.step for cursor, _ in shelf.saved] == [1, 2, 3, 3]

    def test_the_state_after_a_way_back_is_that_of_the_checkpoint(
        self, dataset, shelf, monkeypatch
    ):
        run = make_run(dataset, epochs=1)
        train(run, monkeypatch, [])
        right = weights_of(run)
        with torch.no_grad():
            for weight in run.model.parameters():
                weight.add_(1.0)
        cursor, _ = roll_back(run, [], Diverged("loss is nan"))
        assert cursor == Cursor(1, 0, 3)
        for name, weight in weights_of(run).items():
            torch.testing.assert_close(weight, right[name])

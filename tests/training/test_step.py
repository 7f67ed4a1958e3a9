"""A step in parts: the gradient of the whole batch, with less of it in memory at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.artifact import Artifact
from recsys.data.collate import collate_windows
from recsys.schema import NO_TARGET
from recsys.training import loop
from recsys.training.anomaly import Watch
from recsys.training.cursor import Cursor
from recsys.training.loop import train_step
from recsys.training.progress import Journal
from recsys.training.step import split, weight_of
from tests.training.test_ingest import rows_of, table_of
from tests.training.test_memory import DEEPSPEED_WARNINGS
from tests.training.tiny_run import make_run

pytestmark = pytest.mark.filterwarnings(*DEEPSPEED_WARNINGS)


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(2, 9), min_size=1, max_size=8), count=st.integers(1, 10))
def test_the_parts_hold_the_rows_in_order_and_no_padding_they_need_not(lengths, count):
    batch = collate_windows(table_of(lengths, np.random.default_rng(0)), np.ones(3, np.float32))
    parts = split(batch, count)
    assert len(parts) == count
    learned = [part for part in parts if weight_of(part)]
    assert [row for part in learned for row in rows_of(part)] == rows_of(batch)
    assert sum(map(weight_of, parts)) == weight_of(batch)
    for part in parts if count > 1 else []:
        assert part.targets.shape[1] == part.lengths.max() == part.weights.shape[1]
    for part in parts[len(lengths) :]:
        assert (part.targets == NO_TARGET).all()


def gradients(dataset: Artifact, **changes: Any) -> list[torch.Tensor]:
    """Those that the optimizer gets in the first step."""
    run = make_run(dataset, zero_stage=0, **changes)
    found: list[torch.Tensor] = []
    run.engine.optimizer.register_step_pre_hook(
        lambda *_: found.extend(weight.grad.clone() for weight in run.model.parameters())
    )
    [ready, *_] = run.batches.epochs(Cursor(), 1)
    assert ready is not None
    with Journal(run, Cursor(), []) as journal:
        loss = train_step(run, ready.batch, 0, Watch(run.job.training), journal)
    return [*found, loss]


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.training.progress.run_folder", lambda: None)


WEIGHTS = {"purchase": 5.0, "click": 0.5}


@pytest.mark.usefixtures("alone", "no_files")
class TestAccumulation:
    @pytest.mark.parametrize("accumulation", [2, 6])
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"event_weights": WEIGHTS},
            {"num_negatives": 8},
            {"num_negatives": 8, "event_weights": WEIGHTS, "mask_history_negatives": True},
        ],
    )
    def test_gradient_and_loss_of_the_parts_are_those_of_the_whole(
        self, dataset, accumulation, changes
    ):
        whole = gradients(dataset, **changes)
        parts = gradients(dataset, accumulation=accumulation, **changes)
        for found, right in zip(parts, whole, strict=True):
            torch.testing.assert_close(found, right, atol=1e-6, rtol=1e-5)
        assert max(gradient.abs().max() for gradient in whole[:-1]) > 1e-3

    def test_zero_2_adds_parts_up_to_the_same_norm(self, dataset):
        norms = []
        for accumulation in (1, 3):
            run = make_run(dataset, zero_stage=2, accumulation=accumulation)
            [ready, *_] = run.batches.epochs(Cursor(), 1)
            with Journal(run, Cursor(), []) as journal:
                train_step(run, ready.batch, 0, Watch(run.job.training), journal)
            assert run.engine.was_step_applied()
            assert run.engine.global_steps == 1
            norms.append(float(run.engine.get_global_grad_norm()))
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)

    def test_one_bad_part_leaves_the_whole_step_out(self, dataset, monkeypatch):
        run = make_run(dataset, zero_stage=2, accumulation=3)
        [ready, *_] = run.batches.epochs(Cursor(), 1)
        factors = iter([1.0, torch.nan, 1.0])
        real = loop.training_loss
        monkeypatch.setattr(loop, "training_loss", lambda *told: real(*told) * next(factors))
        before = [weight.clone() for weight in run.model.parameters()]
        with Journal(run, Cursor(), []) as journal:
            train_step(run, ready.batch, 0, Watch(run.job.training), journal)
        assert not run.engine.was_step_applied()
        for weight, old in zip(run.model.parameters(), before, strict=True):
            assert torch.equal(weight, old)

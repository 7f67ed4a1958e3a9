"""DeepSpeed on one rank in this process: what a checkpoint of each ZeRO stage gives back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recsys.config import TrainingConfig
from recsys.training.zero import TAG, consolidated_state, start_engine
from tests.training.test_memory import DEEPSPEED_WARNINGS
from tests.training.tiny_run import one_rank

State = dict[str, torch.Tensor]
STAGES = [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32"), (2, "bf16"), (3, "fp32"), (3, "bf16")]

pytestmark = pytest.mark.filterwarnings(*DEEPSPEED_WARNINGS)


@pytest.fixture(scope="module", autouse=True)
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with one_rank(tmp_path_factory.mktemp("rank")):
        yield


def make_model() -> nn.Module:
    """Weights that learn, frozen ones, and buffers of two kinds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    model.register_buffer("share", torch.tensor([0.5]))
    model.register_buffer("counts", torch.tensor([1, 2**30 + 1]))
    return model


def start(model: nn.Module, stage: int, precision: str, **changes: Any) -> Any:
    told = {"num_workers": 1, "global_batch_size": 4, "learning_rate": 0.01, **changes}
    config = TrainingConfig(zero_stage=stage, precision=precision, **told)  # pyright: ignore
    return start_engine(model, config, total_steps=20)


def take_steps(engine: Any, precision: str, count: int, scale: float = 1.0) -> None:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for _ in range(count):
        loss = engine(torch.ones(4, 4, dtype=dtype)).float().square().sum() * scale
        engine.backward(loss, scale_wrt_gas=False)
        engine.step()


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], State]:
    """What the checkpoint of each stage gives back after five steps."""
    found = {}
    for stage, precision in STAGES:
        folder = tmp_path_factory.mktemp("checkpoint")
        engine = start(make_model(), stage, precision)
        take_steps(engine, precision, 5)
        engine.save_checkpoint(str(folder), tag=TAG)
        found[stage, precision] = consolidated_state(folder)
    return found


@pytest.mark.parametrize(("stage", "precision"), STAGES)
def test_a_checkpoint_gives_back_the_whole_model_in_float32(states, stage, precision):
    found, before = states[stage, precision], make_model().state_dict()
    assert found.keys() == before.keys()
    floats = {name for name, tensor in before.items() if tensor.is_floating_point()}
    assert {name for name, tensor in found.items() if tensor.dtype == torch.float32} == floats
    make_model().load_state_dict(found)
    frozen = before["0.weight"].bfloat16() if precision == "bf16" else before["0.weight"]
    assert torch.equal(found["0.weight"], frozen.float())
    assert not torch.allclose(found["1.weight"], before["1.weight"], atol=1e-3)
    assert found["counts"].tolist() == [1, 2**30 + 1]


@pytest.mark.parametrize(("stage", "precision"), STAGES)
def test_weights_come_from_the_masters_and_not_from_their_rounded_copies(states, stage, precision):
    found = states[stage, precision]["1.weight"]
    assert not torch.equal(found, found.bfloat16().float())


def test_every_stage_learns_the_same_in_fp32(states):
    plain = states[0, "fp32"]["1.weight"]
    for stage in (1, 2, 3):
        other = states[stage, "fp32"]["1.weight"]
        torch.testing.assert_close(other, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stage", [2, 3])
def test_parts_of_a_step_add_up_in_fp32(tmp_path: Path, stage):
    """A first part of 1 and 32 of 1/512: in bf16 each of them would be rounded away."""
    small, parts = 2.0**-9, 33
    states = []
    for name, scales in {"parts": [1.0] + [small] * (parts - 1), "whole": [1.0625]}.items():
        count = len(scales)
        size = {"global_batch_size": count, "accumulation": count, "max_grad_norm": 1e9}
        engine = start(make_model(), stage, "bf16", **size)
        for scale in scales:
            take_steps(engine, "bf16", 1, scale)
        engine.save_checkpoint(str(tmp_path / name), tag=TAG)
        assert engine.global_steps == 1
        states.append(first_moments(engine))
    torch.testing.assert_close(states[0], states[1], rtol=0.01, atol=1e-6)


def first_moments(engine: Any) -> torch.Tensor:
    states = engine.optimizer.optimizer.state.values()
    return torch.cat([state["exp_avg"].flatten().clone() for state in states])

"""ZeRO stages 1, 2 and 3 against torch's DistributedDataParallel: the same losses, less memory.

Two ranks on CPU, fp32, a hybrid model with dropout, the same start, windows and draws. The peer is
torch's AdamW with the trainer's groups of weights and its schedule, and torch's own clipping.
`ratio` is the largest relative difference from the peer's loss in any step of any stage; beside it
stands the optimizer's memory on rank 0 in shares of the peer's.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.bare_ranks import WORLD_SIZE, run_ranks
from recsys.config import ModelConfig, TrainingConfig
from recsys.data.collate import collate_windows
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import split_loss
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import Batch, History
from recsys.training.optimizer import learning_rate_factor, parameter_groups
from recsys.training.zero import start_engine

STAGES, STEPS, WINDOWS, LENGTH, ITEMS, TEXT_SIZE = (1, 2, 3), 60, 16, 12, 500, 96
TARGET = 1e-4

Step = Callable[[Batch], torch.Tensor]
MODEL = ModelConfig(embedding_size=64, projection_size=64)
SHAPE = ModelShape(num_items=ITEMS, max_history=LENGTH, num_events=1, text_size=TEXT_SIZE)


def main() -> None:
    """Train each way and print the result as one JSON object."""
    losses, sizes = run_ranks(compare)
    peer = losses["ddp"]
    differences = {
        name: max(abs(a - b) / b for a, b in zip(found, peer, strict=True))
        for name, found in losses.items()
        if name != "ddp"
    }
    result = {
        "benchmark": "zero_equivalence",
        "peer": "torch DistributedDataParallel with AdamW, fp32",
        "ratio": float(f"{max(differences.values()):.1e}"),
        "target": TARGET,
        "higher_is_better": False,
        "detail": {
            "largest_difference": {n: float(f"{d:.1e}") for n, d in differences.items()},
            "optimizer_share": {n: round(s / sizes["ddp"], 3) for n, s in sizes.items()},
            "first_and_last_loss": [round(peer[0], 4), round(peer[-1], 4)],
            "ranks": WORLD_SIZE,
            "steps": STEPS,
        },
    }
    print(json.dumps(result))


def compare(rank: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """The losses of all ranks by step, and the bytes of the optimizer's state, of each way."""
    losses: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for stage in (0, *STAGES):
        name = f"zero_{stage}" if stage else "ddp"
        torch.manual_seed(0)
        model = build_model(MODEL, SHAPE).train()
        step, optimizer = _zero(model, stage) if stage else _ddp(model)
        losses[name] = [_loss(step, rank, number) for number in range(STEPS)]
        sizes[name] = _state_bytes(optimizer)
    return losses, sizes


def _zero(model: RecommenderModel, stage: int) -> tuple[Step, torch.optim.Optimizer]:
    engine = start_engine(model, _training(stage), STEPS)

    def step(batch: Batch) -> torch.Tensor:
        loss = _score(engine, batch)
        engine.backward(loss)
        engine.step()
        return loss

    return step, engine.optimizer.optimizer


def _ddp(model: RecommenderModel) -> tuple[Step, torch.optim.Optimizer]:
    training, wrapped = _training(0), DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, training), betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, STEPS, training.warmup_share)
    )

    def step(batch: Batch) -> torch.Tensor:
        optimizer.zero_grad()
        loss = _score(wrapped, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        schedule.step()
        return loss

    return step, optimizer


def _training(stage: int) -> TrainingConfig:
    return TrainingConfig(
        num_workers=WORLD_SIZE,
        zero_stage=stage,
        precision="fp32",
        global_batch_size=WINDOWS * WORLD_SIZE,
    )


def _score(model: nn.Module, batch: Batch) -> torch.Tensor:
    text = torch.randn(ITEMS, TEXT_SIZE, generator=torch.Generator().manual_seed(1))
    users_PD, items_CD, targets_P = model(batch, ItemInputs(torch.arange(ITEMS), text=text))
    temperature, num_parts = MODEL.temperature, MODEL.num_parts
    return split_loss(users_PD, items_CD, targets_P, temperature, None, None, num_parts)


def _loss(step: Step, rank: int, number: int) -> float:
    """The mean of all ranks' losses in a step."""
    seed = number * WORLD_SIZE + rank
    random = torch.Generator().manual_seed(seed)
    # Chains of neighbours: there is something to learn.
    starts = torch.randint(ITEMS, (WINDOWS, 1), generator=random)
    rows = (starts + torch.arange(LENGTH + 1)) % ITEMS
    torch.manual_seed(seed)
    loss = step(collate_windows([History.of_items(row.numpy()) for row in rows]))
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    return mean.item() / WORLD_SIZE


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = [t for state in optimizer.state.values() for t in state.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


if __name__ == "__main__":
    main()

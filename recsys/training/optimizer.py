"""Parameter groups, the learning-rate schedule, and what DeepSpeed leaves to an optimizer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from recsys.config import TrainingConfig

BACKBONES = ("text_encoder.", ".layers.body.")
"""In the names of the weights of pretrained language models, of item texts and of histories."""


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """AdamW groups: backbone and the rest, each with and without weight decay.

    Vectors (norms, biases) and embedding tables are not decayed.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        backbone = any(part in name for part in BACKBONES)
        decays = parameter.ndim > 1 and id(parameter) not in tables
        group = groups.setdefault((backbone, decays), _group(config, backbone, decays))
        group["params"].append(parameter)
    return list(groups.values())


def _group(config: TrainingConfig, backbone: bool, decays: bool) -> dict[str, Any]:
    rate = config.backbone_learning_rate if backbone else config.learning_rate
    return {"params": [], "lr": rate, "weight_decay": config.weight_decay if decays else 0.0}


def learning_rate_factor(step: int, total_steps: int, warmup_share: float) -> float:
    """What the peak rate is multiplied with: a linear rise, then half a cosine down to 1%."""
    warmup = max(1, round(warmup_share * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def slow_down(
    schedule: torch.optim.lr_scheduler.LambdaLR, optimizer: torch.optim.Optimizer, factor: float
) -> None:
    """Set every group's learning rate to this share of the config's, from now on.

    The schedule's own state carries it, and so does each later checkpoint.
    """
    groups = optimizer.param_groups
    schedule.base_lrs = [group["initial_lr"] * factor for group in groups]
    for group, rate, curve in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = rate * curve(schedule.last_epoch)
    schedule._last_lr = [group["lr"] for group in groups]


def watch_plain_optimizer(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Let a plain optimizer do what those of ZeRO do: measure, clip, and leave bad steps out.

    DeepSpeed wraps none around ZeRO stage 0 in fp32, and would apply a step of NaN. It reads the
    two attributes after the step, if an optimizer has them.
    """
    told: Any = optimizer

    def prepare(*_: object) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = nn.utils.clip_grad_norm_(weights, max_norm)
        told._global_grad_norm, told.overflow = norm, not bool(torch.isfinite(norm))
        if told.overflow:
            optimizer.zero_grad(set_to_none=True)  # and a weight without gradient stays as it is

    told.overflow, told._global_grad_norm = False, None
    optimizer.register_step_pre_hook(prepare)

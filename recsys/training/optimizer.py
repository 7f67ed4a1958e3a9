"""Parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

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

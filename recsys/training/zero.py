"""DeepSpeed ZeRO: the one file that imports deepspeed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import deepspeed
import deepspeed.utils
import torch
import torch._dynamo  # deepspeed.zero.Init fails with "Signature mismatch" without it
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from torch import nn

from recsys.config import TrainingConfig
from recsys.training.optimizer import learning_rate_factor, parameter_groups

TAG = "state"
"""Name of the folder DeepSpeed writes its shards to."""


def deepspeed_config(config: TrainingConfig) -> dict[str, Any]:
    """DeepSpeed's own JSON, derived from ours."""
    return {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.global_batch_size // config.num_workers,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm,
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": {"stage": config.zero_stage},
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": config.learning_rate,
                "betas": [0.9, 0.98],
                "torch_adam": not config.use_gpu,
            },
        },
        "steps_per_print": 1 << 30,
    }


def start_engine(model: nn.Module, config: TrainingConfig, total_steps: int) -> Any:
    """The DeepSpeed engine of this rank; the process group is Ray Train's."""
    deepspeed.utils.logger.setLevel(logging.WARNING)

    def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(step, total_steps, config.warmup_share),
        )

    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=parameter_groups(model, config),  # pyright: ignore
        config=deepspeed_config(config),
        lr_scheduler=schedule,  # pyright: ignore
    )
    return engine


def consolidated_state(directory: Path) -> dict[str, torch.Tensor]:
    """All ranks' shards of one checkpoint as a float32 state dict, from the master weights."""
    state = get_fp32_state_dict_from_zero_checkpoint(str(directory), tag=TAG)
    assert state is not None
    return dict(state)

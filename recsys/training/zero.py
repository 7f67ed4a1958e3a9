"""DeepSpeed ZeRO: the one file that imports deepspeed."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import deepspeed
import deepspeed.utils
import torch
import torch._dynamo  # deepspeed.zero.Init fails with "Signature mismatch" without it
from deepspeed.checkpoint import ds_to_universal
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from torch import nn

from recsys.config import TrainingConfig
from recsys.training.optimizer import (
    learning_rate_factor,
    parameter_groups,
    watch_plain_optimizer,
)

TAG = "state"
"""Name of the folder DeepSpeed writes its shards to."""


def deepspeed_config(config: TrainingConfig) -> dict[str, Any]:
    """DeepSpeed's own JSON, derived from ours."""
    told: dict[str, Any] = {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.accumulation,
        # At stage 0 `watch_plain_optimizer` clips.
        "gradient_clipping": config.max_grad_norm if config.zero_stage else 0.0,
        "zero_optimization": _zero_settings(config),
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
    if config.precision != "fp32":
        told[config.precision] = {"enabled": True}
    if config.gradient_precision != config.precision:
        told["data_types"] = {"grad_accum_dtype": config.gradient_precision}
    return told


def _zero_settings(config: TrainingConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {"stage": config.zero_stage}
    if config.offload_optimizer != "none":
        settings["offload_optimizer"] = {"device": config.offload_optimizer}
    if config.offload_parameters != "none":
        settings["offload_param"] = {"device": config.offload_parameters}
    return settings


def start_engine(model: nn.Module, config: TrainingConfig, total_steps: int) -> Any:
    """The DeepSpeed engine of this rank; the process group is Ray Train's."""
    deepspeed.utils.logger.setLevel(logging.WARNING)
    if not config.use_gpu:
        # Sums by shared memory are compiled at the first start, under a lock file that a killed
        # worker leaves, and then every later start waits for ever. Gloo needs no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # pyright: ignore

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
    if not config.zero_stage:
        watch_plain_optimizer(engine.optimizer, config.max_grad_norm)  # pyright: ignore
    return engine


def consolidated_state(directory: Path) -> dict[str, torch.Tensor]:
    """All ranks' shards of one checkpoint as a float32 state dict, from the master weights."""
    state = _whole_module(directory / TAG)
    if list((directory / TAG).glob("*_optim_states.pt")):
        found = get_fp32_state_dict_from_zero_checkpoint(str(directory), tag=TAG)
        assert found is not None
        state |= found
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _whole_module(shards: Path) -> dict[str, torch.Tensor]:
    """What stages 0 to 2 keep of the module whole; empty for stage 3.

    Stage 0 has its weights nowhere else, and DeepSpeed's own consolidation fails there. At stage 1
    it leaves out frozen weights.
    """
    file = shards / "mp_rank_00_model_states.pt"
    if not file.is_file():
        return {}
    return torch.load(file, map_location="cpu", weights_only=False)["module"]


def convert_to_universal(shards: Path, target: Path) -> None:
    """All ranks' shards of a checkpoint as DeepSpeed's "universal" folder, which any number of
    ranks can load; see `recsys.training.reshard`."""
    told = argparse.Namespace(
        input_folder=str(shards),
        output_folder=str(target),
        num_extract_workers=1,  # in this process: a fork would share the process group
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    # It prints every phase and a progress bar.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(told)

"""A Ray Train run: its workers, where its shards go, and what it survives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray.train
import ray.train.torch

from recsys.config import PretrainingConfig, TrainingConfig
from recsys.storage import steady_filesystem


def run_workers(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    config: TrainingConfig | PretrainingConfig,
    run_uri: str,
    name: str,
    kept: ray.train.CheckpointConfig,
) -> ray.train.Result:
    """Run `loop(settings)` in every worker; checkpoints lie in `<run_uri>/<name>`.

    A run of the same name that was interrupted is gone on with.
    """
    # Ray Train writes by itself, where no loop of ours would try again.
    fs, place = steady_filesystem(run_uri)
    trainer = ray.train.torch.TorchTrainer(
        loop,
        train_loop_config=settings,
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.num_workers, use_gpu=config.use_gpu
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=place,
            storage_filesystem=fs,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            checkpoint_config=kept,
        ),
    )
    return trainer.fit()

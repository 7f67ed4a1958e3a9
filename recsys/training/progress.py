"""The log of a run, and the lines that its first rank prints."""

from __future__ import annotations

import torch
import torch.distributed

from recsys.training.checkpoint import Log
from recsys.training.cursor import Cursor
from recsys.training.run import Run

PRINT_EVERY = 100
"""Steps between two lines."""


def log_step(
    run: Run, log: Log, cursor: Cursor, loss: float, speed: float, wait_share: float
) -> None:
    """Add the ranks' mean loss and data wait to the log; `speed` is in steps a second."""
    sums = torch.tensor([loss, wait_share], dtype=torch.float64, device=run.engine.device)
    torch.distributed.all_reduce(sums)
    mean_loss, mean_wait = (sums / run.world_size).tolist()
    row = {
        "step": cursor.step,
        "epoch": cursor.epoch,
        "loss": mean_loss,
        "learning_rate": run.engine.get_lr()[0],
        "windows_per_second": speed * run.job.training.global_batch_size,
        "data_wait_share": mean_wait,
    }
    log.append(row)
    if run.rank == 0 and cursor.step % PRINT_EVERY == 0:
        left = (run.total_steps - cursor.step) / speed
        print(
            f"step {cursor.step}/{run.total_steps}  loss {row['loss']:.3f}  "
            f"{row['windows_per_second']:.0f} windows/s  {left:.0f} s left",
            flush=True,
        )


def log_epoch(run: Run, log: Log, cursor: Cursor, metrics: dict[str, float]) -> None:
    """Add an epoch's validation to the log."""
    log.append({"step": cursor.step, "epoch": cursor.epoch - 1, **metrics})
    if run.rank == 0:
        found = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"epoch {cursor.epoch}/{run.job.training.epochs} done  {found}", flush=True)

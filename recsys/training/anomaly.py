"""What to do with a loss that went bad: leave steps out, go back to a checkpoint, or stop.

A bad step is never applied, on any rank. Its loss is multiplied by NaN before the backward pass, so
that all gradients are NaN, and DeepSpeed leaves out a step whose global gradient norm is not
finite: one number for all ranks, which DeepSpeed looks at anyway.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

import torch

from recsys.config import TrainingConfig
from recsys.training.checkpoint import Log, restore
from recsys.training.cursor import Cursor
from recsys.training.optimizer import slow_down
from recsys.training.run import Run

WINDOW = 100
"""Applied steps whose losses tell what is usual."""
ENOUGH = 50
"""Applied steps from which on a loss can be said to explode."""
NATS = 5.0
"""A loss so far above the median explodes: targets are 148 (e^5) times less likely than just now.
A step of training never does that by itself; a model that falls back to a uniform guess does."""
SPREADS = 10.0
"""And so many robust standard deviations above it: 1.4826 times the median absolute deviation
(Rousseeuw & Croux 1993, doi 10.1080/01621459.1993.10476408). Batches of unlike length or few
targets spread widely without harm."""
ROLLBACK = "rollback"
"""In the log: how often the run had gone back then."""

TO_DO = (
    "so it stops: lower training.learning_rate, raise training.warmup_share, use fp32, or look for "
    "what is odd in the data of that step"
)


class Diverged(FloatingPointError):
    """The state cannot be trusted: too many bad steps in a row, or a validation that fails."""


class Watch:
    """Looks at each step's loss without making the device wait: a good one is read later.

    Losses are means over all ranks, so that all ranks come to the same view.
    """

    def __init__(self, training: TrainingConfig) -> None:
        self._max_bad_steps = training.max_bad_steps
        self._read_every = training.log_every
        self._seeks_scale = training.precision == "fp16"
        self._unread: list[torch.Tensor] = []
        self._usual: deque[float] = deque(maxlen=WINDOW)
        self._bad_in_a_row = 0
        self.num_bad = 0
        self.ceiling = torch.finfo(torch.float32).max
        """No loss above it is learned from."""

    @property
    def trusts(self) -> bool:
        """Whether the last step was applied; what comes after one that was not is no checkpoint."""
        return not self._bad_in_a_row

    def guard(self, loss: torch.Tensor) -> torch.Tensor:
        """1 for a loss to learn from and NaN for a bad one, on the loss' device."""
        return torch.where(loss <= self.ceiling, 1.0, torch.nan)

    def saw(self, step: int, loss: torch.Tensor, applied: bool) -> None:
        """A step is over.

        Raises:
            Diverged: more steps in a row were left out than may be.
        """
        if applied:
            self._bad_in_a_row = 0
            self._unread.append(loss)
            if len(self._unread) == self._read_every:
                self._read()
            return
        value = loss.item()
        if self._seeks_scale and value <= self.ceiling:
            return  # gradients overflow until DeepSpeed has found the scale for fp16
        self._bad_in_a_row += 1
        self.num_bad += 1
        if self._bad_in_a_row > self._max_bad_steps:
            raise Diverged(f"loss is {value:.6g} at step {step}{self._reason(value)}")

    def judge(self, step: int, metrics: dict[str, float]) -> None:
        """Validation is over. Its loss has to be finite, and after a bad step a usual one.

        Raises:
            Diverged: this state must not become a checkpoint.
        """
        loss = metrics.get("valid_loss")
        if loss is not None and not math.isfinite(loss):
            raise Diverged(f"valid_loss is {loss} at step {step}")
        if not self.trusts and (loss is None or loss > self.ceiling):
            raise Diverged(f"the last step of {step} was left out, and valid_loss is {loss}")

    def _reason(self, loss: float) -> str:
        if not math.isfinite(loss):
            return ""
        if loss > self.ceiling:
            return f" where at most {self.ceiling:.6g} is usual"
        return ", and its gradient is not finite"

    def _read(self) -> None:
        self._usual.extend(torch.stack(self._unread).tolist())
        self._unread.clear()
        if len(self._usual) >= ENOUGH:
            self.ceiling = highest_usual(self._usual)


def highest_usual(losses: deque[float]) -> float:
    """The highest loss that is no explosion after these: see `NATS` and `SPREADS`."""
    middle = statistics.median(losses)
    spread = 1.4826 * statistics.median(abs(loss - middle) for loss in losses)
    return middle + max(NATS, SPREADS * spread)


def roll_back(run: Run, log: Log, why: Diverged) -> tuple[Cursor, Log]:
    """The state of the last checkpoint, with half the learning rate that it was reached with.

    The log keeps count, so that a run that starts again knows of it.

    Raises:
        FloatingPointError: there is no checkpoint, or the run went back too often.
    """
    told = [row for row in log if ROLLBACK in row]
    if len(told) >= run.job.training.max_rollbacks:
        raise FloatingPointError(f"{why}; the run went back {len(told)} times, {TO_DO}") from why
    cursor, log = restore(run.engine)
    if cursor == Cursor():
        raise FloatingPointError(f"{why}; there is no checkpoint to go back to, {TO_DO}") from why
    log += [row for row in told if row not in log]
    factor = 0.5 ** (len(told) + 1)
    slow_down(run.engine.lr_scheduler, run.engine.optimizer, factor)
    log.append({"step": cursor.step, ROLLBACK: len(told) + 1, "learning_rate_factor": factor})
    if run.rank == 0:
        print(f"{why}; back to step {cursor.step} at {factor:g} of the learning rate", flush=True)
    return cursor, log

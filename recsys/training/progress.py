"""The log of a run: what is measured, who is told, and the lines that its first rank prints."""

from __future__ import annotations

import datetime
import math
from types import TracebackType
from typing import Self

import torch
import torch.distributed

from recsys.training.checkpoint import Log
from recsys.training.cursor import Cursor
from recsys.training.run import Run
from recsys.training.speed import Clock, Work, memory_bytes, peak_flops
from recsys.training.trackers import open_trackers, run_folder

Row = dict[str, float]
PRINT_EVERY = 100
"""Steps between two lines."""
LAPS = ("data", "encode", "loss", "backward", "optimizer", "checkpoint")
"""The parts of a step: waiting for a batch, encoding items and users, the loss with the ranks'
mean of it, the backward pass with the exchange of gradients, the optimizer, and checkpoints."""


class Journal:
    """Measures the steps of one rank and writes all ranks' log; leaving the `with` block closes it.

    Nothing waits for the device but a step that is logged.
    """

    def __init__(self, run: Run, cursor: Cursor, log: Log) -> None:
        self._run = run
        self.log = log
        self._clock = Clock(run.engine.device)
        self._peak = peak_flops(run.engine.device, run.job.training.precision)
        folder = run_folder() if run.rank == 0 else None
        self._trackers = open_trackers(folder, log, cursor.step)
        self.start(cursor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tracker in self._trackers:
            tracker.close()

    def start(self, cursor: Cursor) -> None:
        """Measure from here on: an epoch begins."""
        self._step, self._work = cursor.step, Work()
        self._clock.restart()

    def lap(self, name: str) -> None:
        """One of the `LAPS` is over."""
        self._clock.lap(name)

    def encoded(self, work: Work) -> None:
        """A micro-batch of so much work is encoded."""
        self._clock.lap("encode")
        self._work.add(work)

    def step(self, cursor: Cursor, loss: torch.Tensor, num_bad: int) -> None:
        """A step is over; `loss` is the ranks' mean, and `num_bad` the steps left out so far."""
        if cursor.step % self._run.job.training.log_every == 0:
            row: Row = {"step": cursor.step, "epoch": cursor.epoch, "loss": loss.item()}
            row |= self._rates() | self._measured(cursor.step - self._step)
            row["bad_steps"] = num_bad
            self._add(row)
            if self._run.rank == 0 and cursor.step % PRINT_EVERY == 0:
                print(line(row, self._run.total_steps), flush=True)
            self.start(cursor)

    def epoch(self, cursor: Cursor, metrics: dict[str, float]) -> None:
        """An epoch is over, and validated."""
        self._add({"step": cursor.step, "epoch": cursor.epoch - 1, **metrics})
        if self._run.rank == 0:
            found = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            epochs = self._run.job.training.epochs
            print(f"epoch {cursor.epoch}/{epochs} done  {found}", flush=True)

    def _rates(self) -> Row:
        engine = self._run.engine
        norm = engine.get_global_grad_norm()
        return {"learning_rate": engine.get_lr()[0], "grad_norm": float(norm)}

    def _measured(self, num_steps: int) -> Row:
        """Speeds of all ranks together, shares, and milliseconds of a step's parts on average."""
        seconds, laps = self._clock.read()
        work, ranks = self._work, self._run.world_size
        laps_L = [laps.get(name, 0.0) for name in LAPS]
        counts = [work.windows, work.events, work.places, work.items, work.flops(self._run.costs)]
        sums = self._sums([seconds, *laps_L, *counts])
        seconds, *laps_L = (passed / ranks for passed in sums[: -len(counts)])
        windows, events, places, items, flops = sums[-len(counts) :]
        row = {
            "windows_per_second": windows / seconds,
            "events_per_second": events / seconds,
            "padding_share": 1 - events / places,
            "items_encoded": items / (ranks * num_steps),
            "data_wait_share": laps_L[0] / seconds,
            "seconds_left": seconds / num_steps * (self._run.total_steps - self._step - num_steps),
            "memory_gb": self._largest(memory_bytes(self._run.engine.device)) / 1e9,
        }
        row |= {f"{k}_ms": 1_000 * t / num_steps for k, t in zip(LAPS, laps_L, strict=True)}
        if self._peak is not None:
            row["model_flops_utilization"] = flops / (ranks * seconds * self._peak)
        return row

    def _sums(self, numbers: list[float]) -> list[float]:
        sums = torch.tensor(numbers, dtype=torch.float64, device=self._run.engine.device)
        torch.distributed.all_reduce(sums)
        return sums.tolist()

    def _largest(self, number: float) -> float:
        most = torch.tensor(number, dtype=torch.float64, device=self._run.engine.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return most.item()

    def _add(self, row: Row) -> None:
        """What is not finite is no number of JSON: it is left out, and `bad_steps` tells of it."""
        told = {name: value for name, value in row.items() if math.isfinite(value)}
        self.log.append(told)
        for tracker in self._trackers:
            tracker.write(told)


def line(row: Row, total_steps: int) -> str:
    """What is printed of a row of the log; the time left is h:mm:ss."""
    left = datetime.timedelta(seconds=round(row["seconds_left"]))
    parts = [
        f"step {row['step']}/{total_steps}",
        f"loss {row['loss']:.3f}",
        f"grad {row['grad_norm']:.2f}",
        f"{row['windows_per_second']:.0f} windows/s",
        f"{row['events_per_second']:.0f} events/s",
        f"data {row['data_wait_share']:.0%}",
        f"{row['memory_gb']:.1f} GB",
    ]
    if "model_flops_utilization" in row:
        parts.append(f"MFU {row['model_flops_utilization']:.1%}")
    return "  ".join([*parts, f"{left} left"])

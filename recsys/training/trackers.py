"""Where the rows of a run's log go while it runs: `log.jsonl` and TensorBoard's event files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import ray.train
from tensorboardX import SummaryWriter

from recsys.training.checkpoint import Log

ROWS = "log.jsonl"
TENSORBOARD = "tensorboard"


class Tracker(Protocol):
    """Takes the rows of a log, each with a `step`."""

    def write(self, row: dict[str, float]) -> None:
        """Add a row; it can be read by others from now on."""
        ...

    def close(self) -> None:
        """No row comes any more."""
        ...


class JsonLines:
    """One JSON object a line: first those of a log so far, so that the file is always the log."""

    def __init__(self, path: Path, log: Log) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        for row in log:
            self.write(row)

    def write(self, row: dict[str, float]) -> None:
        """Add a row as one line."""
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """A scalar a number; what an earlier try wrote from `step` on is not shown any more."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=step)

    def write(self, row: dict[str, float]) -> None:
        """Add a row's numbers at its step."""
        for name, value in row.items():
            if name != "step":
                # TensorBoard takes no "@", and says so each time.
                self._writer.add_scalar(name.replace("@", "_"), value, int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def open_trackers(folder: Path | None, log: Log, step: int) -> list[Tracker]:
    """Those of a run that goes on from `step` with this log; none without a folder."""
    if folder is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [JsonLines(folder / ROWS, log), TensorBoard(folder / TENSORBOARD, step + 1)]


def run_folder() -> Path | None:
    """Where the checkpoints of this Ray Train run lie; None where that is an object storage.

    Objects cannot be added to, so there the log is in the checkpoints alone.
    """
    storage: Any = ray.train.get_context().get_storage()
    local = storage.storage_filesystem.type_name == "local"
    return Path(storage.experiment_fs_path) if local else None

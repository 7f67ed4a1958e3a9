"""The driver's side of a run that may be interrupted: what it is named by, and its best weights."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

import torch

from recsys.models.build import LOG
from recsys.training.checkpoint import Log
from recsys.training.retention import best_first
from recsys.training.shards import ShardError, fetch_all
from recsys.training.zero import consolidated_state

log = logging.getLogger(__name__)

NOT_IN_NAME = {"num_workers", "max_failures", "checkpoint_every", "collective_timeout_s"}
"""Settings that a run may be gone on with under others: they change how it is trained, and not
what. Dropout alone is drawn anew by another number of workers."""


def read_best(run: str, score: str | None) -> tuple[dict[str, torch.Tensor], Log]:
    """The float32 weights and the log of the run's best good checkpoint.

    Raises:
        ShardError: none is good; names the files.
    """
    faults: list[str] = []
    for place in best_first(run, score):
        with tempfile.TemporaryDirectory() as folder:
            try:
                fetch_all(place, Path(folder))
            except ShardError as error:
                log.warning("refused a checkpoint: %s", error)
                faults.append(str(error))
                continue
            return consolidated_state(Path(folder)), json.loads((Path(folder) / LOG).read_text())
    raise ShardError(
        f"no checkpoint in {run} is good; to begin anew, delete that folder\n" + "\n".join(faults)
    )

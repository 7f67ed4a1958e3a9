"""Which checkpoints of a run are kept, and which is the best: the newest ones and the best ones.

Ray Train's own `num_to_keep` keeps the best and the newest alone, so that a torn newest one would
lose all steps since the best.
"""

from __future__ import annotations

import logging
import math

from recsys.storage import StorageError
from recsys.training.shards import (
    Commit,
    ShardError,
    delete_checkpoint,
    list_checkpoints,
    read_commit,
)

log = logging.getLogger(__name__)

KEPT_NEWEST, KEPT_BEST = 2, 2
"""Checkpoints kept for being the newest, of which one may be torn, and for being the best."""


def delete_obsolete(run: str, newest: str, score: str | None) -> None:
    """Delete the checkpoints up to `newest` that are neither among the newest nor the best.

    Those after it are being uploaded. What cannot be deleted now is found again the next time.
    """
    try:
        # Names sort by age, newest first.
        names = list_checkpoints(run)
        commits = {name: _commit_of(run, name) for name in names[names.index(newest) :]}
        for name in obsolete(commits, score):
            delete_checkpoint(f"{run}/{name}")
    except StorageError as error:
        log.warning("old checkpoints are not deleted: %s", error)


def obsolete(commits: dict[str, Commit | None], score: str | None) -> list[str]:
    """Which of these checkpoints, newest first, may go; None is one that never was whole."""
    whole = {name: commit for name, commit in commits.items() if commit is not None}
    best = sorted(whole, key=lambda name: goodness(whole[name], score), reverse=True)
    kept = {*list(whole)[:KEPT_NEWEST], *best[:KEPT_BEST]}
    return [name for name in commits if name not in kept]


def _commit_of(run: str, name: str) -> Commit | None:
    try:
        return read_commit(f"{run}/{name}")
    except ShardError:
        return None


def goodness(commit: Commit, score: str | None) -> tuple[float, int]:
    """What checkpoints are compared by: the metric, of equals the later; larger is better."""
    value = commit.metrics.get(score, -math.inf) if score else -math.inf
    return (-math.inf if math.isnan(value) else value, commit.step)


def best_first(run: str, score: str | None) -> list[str]:
    """Places of the run's checkpoints that were committed, the best first."""
    names = list_checkpoints(run)
    found = {name: commit for name in names if (commit := _commit_of(run, name)) is not None}
    ranked = sorted(found, key=lambda name: goodness(found[name], score), reverse=True)
    return [f"{run}/{name}" for name in ranked]

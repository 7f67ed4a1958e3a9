"""The training rows of a dataset in this process's memory, read once for all baselines.

Shapes: U users, N items, E events, B histories.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.artifact import Artifact
from recsys.data.collate import histories_of, read_rows
from recsys.eval.baselines.sparse import Sparse, from_cells
from recsys.schema import History

MAX_EVENTS = 50_000_000
"""Events that this process reads at once: with some 130 bytes each at the peak, 6.5 GB."""


@dataclass(frozen=True)
class TrainingMatrix:
    """What every user did in training.

    `counts` (U, N) float32 is how often each user took each item; `item_indexes` and `timestamps`
    (E,) are the events. `last_windows` has a row for each user, in the same order: the newest
    training window, a history whose last event can be predicted from the others.
    """

    counts: Sparse
    item_indexes: np.ndarray
    timestamps: np.ndarray
    last_windows: pa.Table

    def windows_of(self, users: np.ndarray) -> list[History]:
        """The newest training windows of these users."""
        return histories_of(self.last_windows.take(pa.array(users)))


def read_training_matrix(dataset: Artifact, num_items: int, names: Sequence[str]) -> TrainingMatrix:
    """The training rows of a dataset; `names` are the baselines that need them.

    Users with a single training event have no training row, as in training.

    Raises:
        ValueError: there are more events than this process should hold, or no rows.
    """
    facts = dataset.manifest.facts
    check_size(facts["train_targets"] + facts["rows"]["train"], names)
    return join_windows(read_rows(dataset, "train"), num_items)


def check_size(num_events: int, names: Sequence[str]) -> None:
    """Hold that the events fit into one process.

    Raises:
        ValueError: they do not.
    """
    if num_events > MAX_EVENTS:
        raise ValueError(
            f"{num_events} training events are too many for the baselines {', '.join(names)}: "
            f"they learn in one process, from up to {MAX_EVENTS}. Take them out of "
            "evaluation.baselines, or evaluate on a dataset of a sample of the users"
        )


def join_windows(rows: pa.Table, num_items: int) -> TrainingMatrix:
    """Training rows, several of which may be one user's, as one matrix.

    Windows of one sequence overlap in one event: the last of one is the first of the next. It
    counts once. Windows of two sessions of a user do not overlap.
    """
    users = rows[schema.USER_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(users, kind="stable")
    rows, users = rows.take(pa.array(order)), users[order]
    lengths = pc.list_value_length(rows[schema.ITEM_INDEXES]).to_numpy()
    events = [_flat(rows[n]) for n in (schema.ITEM_INDEXES, schema.TIMESTAMPS, schema.EVENTS)]
    once = _not_repeated(users, lengths, events)
    items, times = events[0][once], events[1][once]
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    ones, owners = np.ones(len(items), np.float32), np.repeat(users, lengths)[once]
    counts = from_cells(ones, owners, items, (len(last), num_items))
    return TrainingMatrix(counts, items, times, rows.take(pa.array(last)))


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy()


def _not_repeated(users: np.ndarray, lengths: np.ndarray, events: list[np.ndarray]) -> np.ndarray:
    """(E,) mask of all but the first event of a window that goes on where the one before ended."""
    starts = np.cumsum(lengths) - lengths
    goes_on = users[1:] == users[:-1]
    for values in events:
        goes_on &= values[starts[1:]] == values[starts[1:] - 1]
    once = np.ones(len(events[0]), dtype=bool)
    once[starts[1:][goes_on]] = False
    return once

"""All users of a dataset with what they did, file by file, through Ray Data actors.

A dataset's `events/` hold every cleaned event, and a file holds its users whole. So a file is a
piece of work, and what comes of it depends neither on other files nor on the number of actors.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from recsys import schema
from recsys.artifact import Artifact, open_artifact
from recsys.config import PrepareConfig
from recsys.config.bulk import Until
from recsys.data.history import Sequences, to_sequences
from recsys.data.interactions import EVENTS
from recsys.data.privacy import check_same_key, pseudonymise
from recsys.data.split import TEST, VALID, SplitPlan, assign_split
from recsys.schema import History

ITEMS = "items.parquet"
FIRST_LEFT_OUT = {"train": VALID, "valid": TEST, "all": TEST + 1}
PART, NAME = "part", "name"


@dataclass(frozen=True)
class Reading:
    """How the files of a dataset become histories."""

    session_gap_s: float | None
    keep_values: bool
    plan: SplitPlan
    until: Until

    @classmethod
    def of(cls, dataset: Artifact, until: Until) -> Reading:
        """As the dataset was prepared."""
        prepared = PrepareConfig.model_validate(dataset.manifest.config["prepare"])
        gap = prepared.session_gap_minutes
        plan = SplitPlan(**dataset.manifest.facts["split"])
        return cls(None if gap is None else 60 * gap, prepared.keep_values, plan, until)


def histories_of_users(events: pa.Table, reading: Reading) -> tuple[pa.Array, list[History]]:
    """The users of an events file in the order of their ids, and the history of each.

    Where histories are cut into sessions, a user's history is the newest one with an event. It is
    empty for a user all of whose events come after `until`.
    """
    whole = to_sequences(events, reading.session_gap_s, reading.keep_values)
    if reading.until != "all":
        split = assign_split(whole, reading.plan)
        whole = whole.select(split < FIRST_LEFT_OUT[reading.until])
    chosen = _newest_of_users(whole)
    ids = whole.user_ids.take(pa.array(chosen))
    order = pc.sort_indices(ids).to_numpy()
    return ids.take(pa.array(order)), [history_at(whole, s) for s in chosen[order].tolist()]


def history_at(sequences: Sequences, number: int, end: int | None = None) -> History:
    """One sequence as a history, or its first `end` events."""
    start, stop = sequences.offsets[number : number + 2].tolist()
    at = slice(start, stop if end is None else start + end)
    values = None if sequences.values is None else sequences.values[at]
    return History(
        sequences.item_indexes[at], sequences.timestamps[at], sequences.events[at], values
    )


def _newest_of_users(sequences: Sequences) -> np.ndarray:
    """For each user the last sequence that has an event, or the last where none has."""
    ids = sequences.user_ids
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    # A sequence with events ranks before all that have none.
    ranks = np.arange(len(ids)) + len(ids) * (sequences.lengths > 0)
    return np.maximum.reduceat(ranks, starts) % len(ids)


def only(events: pa.Table, users: pa.Array | None) -> pa.Table:
    """The events of these users; all where there is no list of them."""
    if users is None:
        return events
    return events.filter(pc.is_in(pc.cast(events[schema.USER_ID], pa.large_string()), users))


def names_of(user_ids: Sequence[str], dataset: Artifact, key: bytes | None) -> pa.Array:
    """What a dataset calls these users: pseudonyms where it was made with a key.

    Raises:
        ValueError: no user is named, or the key is not the dataset's.
    """
    distinct = sorted({user_id for user_id in user_ids if user_id})
    if not distinct:
        raise ValueError("the list of users is empty: give their ids, one a line, or no list")
    ids = pa.array(distinct, pa.large_string())
    fingerprint = dataset.manifest.facts.get("user_key")
    if fingerprint is None:
        return ids
    check_same_key(fingerprint, key)
    assert key is not None
    return pseudonymise(ids, key)


def check_index(dataset: Artifact, index: Artifact) -> None:
    """Hold that items have the same indexes in a dataset and an index.

    Raises:
        ValueError: the index was made from another dataset.
    """
    if index.manifest.parents.get("dataset") != dataset.digest:
        raise ValueError(f"{index.uri} was not made from {dataset.uri}: build the index again")


def event_numbers(names: Sequence[str], dataset: Artifact, setting: str) -> list[int] | None:
    """The numbers of named events in a dataset; None, which is all, where none is named.

    Raises:
        ValueError: the dataset has no such event; names the setting.
    """
    known = list(dataset.manifest.config["prepare"]["events"])
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{setting} names {unknown}; {dataset.uri} has: {', '.join(known)}")
    return [known.index(name) for name in names] or None


def map_files(
    dataset: Artifact, worker: Callable[..., Any], arguments: tuple[Any, ...], num_workers: int
) -> Iterator[pa.Table]:
    """Let actors work on the events files, one row `part`, `name` a call; in any order."""
    pieces = [{PART: part, NAME: name} for part, name in enumerate(_files(dataset))]
    done = ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
        worker,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(num_workers, len(pieces))),
        num_cpus=1,
    )
    return cast(Iterator[pa.Table], done.iter_batches(batch_size=None, batch_format="pyarrow"))


def read_files(dataset: Artifact, function: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
    """What a function makes of each events file, by tasks; in any order."""
    uri, names = dataset.uri, _files(dataset)

    def read(block: pa.Table) -> pa.Table:
        opened = open_artifact(uri, "dataset", check=False)
        return pa.concat_tables([function(opened.read_table(r["item"])) for r in block.to_pylist()])

    done = ray.data.from_items(names, override_num_blocks=len(names)).map_batches(
        read, batch_size=None, batch_format="pyarrow"
    )
    return cast(Iterator[pa.Table], done.iter_batches(batch_size=None, batch_format="pyarrow"))


def _files(dataset: Artifact) -> list[str]:
    names = dataset.names(f"{EVENTS}/")
    if not names:
        raise ValueError(f"{dataset.uri} has no events: prepare it again")
    return names

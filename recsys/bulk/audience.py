"""The users who most likely want an item -> `audience` artifact.

Every user's history is scored for the items asked for, by the scores that rank recommendations;
no ranking is made. Each file of events leaves its best users, and the best of these are answered.

Shapes: U users, K items asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.bulk.histories import (
    NAME,
    Reading,
    check_index,
    event_numbers,
    histories_of_users,
    map_files,
)
from recsys.bulk.top_users import TopUsers
from recsys.config.bulk import AudienceConfig, HistoriesConfig
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Recommender
from recsys.schema import History

AUDIENCE = "audience.parquet"
SCORED, TAKEN, NO_HISTORY = "scored", "took_it_already", "no_history"
COUNTS: tuple[str, ...] = (SCORED, TAKEN, NO_HISTORY)
"""What becomes of the users, by item."""


@dataclass(frozen=True)
class Task:
    """What an actor must know; `taken_events` None are all events."""

    dataset: str
    checkpoint: str
    index: str
    items: list[int]
    audience: AudienceConfig
    taken_events: list[int] | None
    reading: Reading
    batch_size: int


def audience(
    config: AudienceConfig,
    histories: HistoriesConfig,
    item_ids: Sequence[str],
    dataset: Artifact,
    checkpoint: Artifact,
    index: Artifact,
    output: str,
) -> Artifact:
    """The best users of each item, items in the order given.

    Raises:
        ValueError: the artifacts were not made from one another, no item is given, or an item is
            not in the index or was removed.
    """
    check_index(dataset, index)
    ids = list(dict.fromkeys(item_ids))
    # Loaded here too, so that a fault is told before actors start.
    recommender = Recommender.load(checkpoint, index, filter_seen=False)
    items = find_items(recommender.catalogue, ids, index.uri)
    taken = event_numbers(config.taken_events, dataset, "audience.taken_events")
    writer = ArtifactWriter(output, "audience")
    reading = Reading.of(dataset, histories.until)
    uris = (dataset.uri, checkpoint.uri, index.uri)
    task = Task(*uris, items, config, taken, reading, histories.batch_size)
    top, counts = TopUsers(config.top_users), dict.fromkeys(COUNTS, np.zeros(len(ids), np.int64))
    for block in map_files(dataset, Scoring, (task,), histories.num_workers):
        parts = pl.DataFrame(pl.from_arrow(block))
        counts = {name: counts[name] + np.array(parts[name].to_list()).sum(0) for name in counts}
        top.merge(parts.select(pl.col("best").explode()).drop_nulls().unnest("best"))
    writer.add_table(AUDIENCE, audience_table(top.rows(), ids))
    settings = {
        "audience": config.model_dump(mode="json"),
        "histories": histories.model_dump(mode="json", exclude={"num_workers"}),
        "item_ids": ids,
    }
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index}
    return writer.publish(
        settings,
        {name: artifact.digest for name, artifact in parents.items()},
        {"users": {name: dict(zip(ids, counts[name].tolist(), strict=True)) for name in COUNTS}},
    )


def find_items(catalogue: Catalogue, item_ids: list[str], place: str) -> list[int]:
    """The indexes of items that can be answered.

    Raises:
        ValueError: no id is given, or some are unknown or removed; names them.
    """
    items, absent = catalogue.present(item_ids)
    if absent or not items:
        named = ", ".join(absent) or "no id was given"
        raise ValueError(f"{place} has no such items: {named}; give ids that it has")
    return items


def audience_table(best: pl.DataFrame, item_ids: Sequence[str]) -> pa.Table:
    """Rows of item_id, user_id, rank from 1, score and probability, null where unknown."""
    names = pl.Series(schema.ITEM_ID, item_ids, pl.String)
    return best.select(
        pl.Series(schema.ITEM_ID, names.gather(best["place"]), pl.String),
        schema.USER_ID,
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("place").alias("rank"),
        "score",
        "probability",
    ).to_arrow(compat_level=pl.CompatLevel.oldest())


def takers(
    histories: Sequence[History], items: Sequence[int], events: Sequence[int] | None
) -> np.ndarray:
    """(U, K) whether a history has one of these events, or any, of an item."""
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    taken = np.concatenate([np.zeros(0, int), *(history.item_indexes for history in histories)])
    if events is not None:
        kinds = np.concatenate([np.zeros(0, int), *(history.events for history in histories)])
        counts = np.isin(kinds, events)
        users, taken = users[counts], taken[counts]
    found = np.zeros((len(histories), len(items)), dtype=bool)
    for place, item in enumerate(items):
        found[users[taken == item], place] = True
    return found


class Scoring:
    """A Ray Data actor around one recommender."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self._task = task
        self._dataset = open_artifact(task.dataset, "dataset", check=False)
        checkpoint = open_artifact(task.checkpoint, "checkpoint", check=False)
        index = open_artifact(task.index, "index", check=False)
        self._recommender = Recommender.load(checkpoint, index, filter_seen=False)

    def __call__(self, block: pa.Table) -> pa.Table:
        parts = [self._part(name) for name in block[NAME].to_pylist()]
        return pl.concat(parts).to_arrow(compat_level=pl.CompatLevel.oldest())

    def _part(self, name: str) -> pl.DataFrame:
        """One row: the best users of a file, and how many users there were by item."""
        task = self._task
        user_ids, histories = histories_of_users(self._dataset.read_table(name), task.reading)
        known = np.flatnonzero([len(history) > 0 for history in histories])
        ids = pl.Series(user_ids.take(pa.array(known)).to_pylist(), dtype=pl.String)
        histories = [histories[user] for user in known]
        top, taken_K = TopUsers(task.audience.top_users), np.zeros(len(task.items), np.int64)
        for start in range(0, len(histories), task.batch_size):
            some = histories[start : start + task.batch_size]
            scores_UK = self._recommender.scorer.score(some, task.items).numpy()
            counts_UK = ~self._left_out(some)
            taken_K += (~counts_UK).sum(0)
            top.add(ids.slice(start, len(some)), scores_UK, counts_UK)
        best = self._with_probabilities(top.rows(), dict(zip(ids, histories, strict=True)))
        empty_K = np.full(len(task.items), len(user_ids) - len(histories))
        told = {SCORED: len(histories) - taken_K, TAKEN: taken_K, NO_HISTORY: empty_K}
        lists = [pl.Series(name, [numbers.tolist()]) for name, numbers in told.items()]
        return pl.DataFrame([best.to_struct("best").implode(), *lists])

    def _left_out(self, histories: Sequence[History]) -> np.ndarray:
        task = self._task
        if task.audience.keep_takers:
            return np.zeros((len(histories), len(task.items)), dtype=bool)
        return takers(histories, task.items, task.taken_events)

    def _with_probabilities(
        self, best: pl.DataFrame, histories: dict[str, History]
    ) -> pl.DataFrame:
        """Only for the users who are left; null where the model has no such head."""
        found: list[float | None] = []
        for some in best.iter_slices(self._task.batch_size):
            items = [[self._task.items[place]] for place in some["place"]]
            of_users = [histories[user] for user in some[schema.USER_ID]]
            found += [value for [value] in self._recommender.probability.of(of_users, items)]
        return best.with_columns(pl.Series("probability", found, pl.Float32))

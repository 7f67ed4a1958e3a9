"""Recommendations for all users of a dataset -> `recommendations` artifact.

A file of events becomes a file of recommendations, so that neither the number of actors nor the
order in which they finish can be seen in the result.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from recsys import schema
from recsys.artifact import (
    Artifact,
    ArtifactWriter,
    FileEntry,
    open_artifact,
    parquet_bytes,
    write_file,
)
from recsys.bulk.histories import (
    ITEMS,
    Reading,
    check_index,
    histories_of_users,
    map_files,
    only,
)
from recsys.config.bulk import HistoriesConfig, RecommendConfig
from recsys.engine.recommender import Ranked, Recommender
from recsys.schema import History

FOLDER = "recommendations"
SCHEMA = pa.schema(
    [
        (schema.USER_ID, pa.large_string()),
        (schema.ITEM_ID, pa.large_string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("source", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Task:
    """What an actor must know."""

    output: str
    dataset: str
    checkpoint: str
    index: str
    recommend: RecommendConfig
    reading: Reading
    batch_size: int
    users: pa.Array | None = None


def recommend(
    config: RecommendConfig,
    histories: HistoriesConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    index: Artifact,
    output: str,
    users: pa.Array | None = None,
) -> Artifact:
    """Rank all items for all users, or for `users` as the dataset names them.

    Parts are in the order of the dataset's files; in a part users are in the order of their ids,
    and items from rank 1 on.

    Raises:
        ValueError: the artifacts were not made from one another.
    """
    check_index(dataset, index)
    Recommender.load(checkpoint, index, config.filter_seen)  # a fault is told before actors start
    writer = ArtifactWriter(output, "recommendations")
    reading = Reading.of(dataset, histories.until)
    uris = (writer.uri, dataset.uri, checkpoint.uri, index.uri)
    task = Task(*uris, config, reading, histories.batch_size, users)
    sources, rows = Counter[str](), 0
    for block in map_files(dataset, Recommending, (task,), histories.num_workers):
        for part in block.to_pylist():
            sources.update(dict(zip(part["sources"], part["users"], strict=True)))
            rows += part["rows"]
            writer.add_entries([FileEntry(**entry) for entry in part["files"]])
    known = sum(sources.values())
    facts = {
        "users": known,
        "unknown_users": 0 if users is None else len(users) - known,
        "rows": rows,
        "users_by_source": dict(sorted(sources.items())),
    }
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index}
    digests = {name: artifact.digest for name, artifact in parents.items()}
    if users is not None:
        digests["users"] = hashlib.sha256("\n".join(users.to_pylist()).encode()).hexdigest()
    settings = {
        "recommend": config.model_dump(mode="json"),
        "histories": histories.model_dump(mode="json", exclude={"num_workers"}),
    }
    return writer.publish(settings, digests, facts)


def rank_users(
    recommender: Recommender, histories: Sequence[History], top_k: int, batch_size: int
) -> list[Ranked]:
    """The best items of each history, in batches."""
    found: list[Ranked] = []
    for start in range(0, len(histories), batch_size):
        some = histories[start : start + batch_size]
        found += recommender.rank(some, [top_k] * len(some), [[]] * len(some))
    return found


def recommendation_rows(
    user_ids: pa.Array, ranked: Sequence[Ranked], item_ids: pa.Array
) -> pa.Table:
    """A row for each user and item, of columns `SCHEMA`; `item_ids` (N,) are in index order."""
    counts = np.array([len(one.item_indexes) for one in ranked], dtype=np.int64)
    users = np.repeat(np.arange(len(ranked)), counts)
    items = [item for one in ranked for item in one.item_indexes]
    columns = [
        user_ids.take(pa.array(users)),
        item_ids.take(pa.array(items, pa.int64())),
        pa.array(np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts) + 1),
        pa.array([score for one in ranked for score in one.scores], pa.float32()),
        pa.array([one.source for one in ranked], pa.large_string()).take(pa.array(users)),
    ]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True))).cast(SCHEMA)


class Recommending:
    """A Ray Data actor around one recommender."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self._task = task
        self._dataset = open_artifact(task.dataset, "dataset", check=False)
        index = open_artifact(task.index, "index", check=False)
        checkpoint = open_artifact(task.checkpoint, "checkpoint", check=False)
        self._recommender = Recommender.load(checkpoint, index, task.recommend.filter_seen)
        self._item_ids = index.read_table(ITEMS, [schema.ITEM_ID])[schema.ITEM_ID].combine_chunks()

    def __call__(self, block: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._part(**row) for row in block.to_pylist()], _PARTS)

    def _part(self, part: int, name: str) -> dict:
        task = self._task
        events = only(self._dataset.read_table(name), task.users)
        user_ids, histories = histories_of_users(events, task.reading)
        ranked = rank_users(self._recommender, histories, task.recommend.top_k, task.batch_size)
        rows = recommendation_rows(user_ids, ranked, self._item_ids)
        sources = Counter(one.source for one in ranked)
        files = []
        if len(rows):
            place = f"{FOLDER}/{part:05d}.parquet"
            files.append(write_file(task.output, place, parquet_bytes(rows)).model_dump())
        return {
            "files": files,
            "rows": len(rows),
            "sources": list(sources),
            "users": list(sources.values()),
        }


_ENTRY = pa.struct([("path", pa.string()), ("size", pa.int64()), ("sha256", pa.string())])
_PARTS = pa.schema(
    [
        ("files", pa.list_(_ENTRY)),
        ("rows", pa.int64()),
        ("sources", pa.list_(pa.string())),
        ("users", pa.list_(pa.int64())),
    ]
)

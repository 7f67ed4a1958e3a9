"""The transitions of a whole dataset: counted by Ray Data, weighed on its validation rows.

Shapes: N items, B histories, D embedding size, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pyarrow as pa
import ray
import torch

from recsys import schema
from recsys.artifact import Artifact, open_artifact
from recsys.config import IndexConfig, PrepareConfig
from recsys.data.collate import collate_histories, histories_of, read_rows, targets_of
from recsys.index.alike import alike_pairs, readable, text_vectors
from recsys.index.transitions import (
    FROM,
    HELD,
    RETURNED,
    Transitions,
    assemble,
    choose,
    pairs_of,
    return_strengths,
    returns_of,
    strongest,
)
from recsys.models.build import load_model
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History

USERS_AT_ONCE = 256
ITEMS_AT_ONCE = 4_096


def fit_transitions(
    config: IndexConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    vectors_ND: torch.Tensor,
    text_NE: torch.Tensor | None = None,
) -> Transitions:
    """The dataset's transitions, weighed so that they do best beside these vectors.

    `text_NE` are the items' vectors by the language model alone, not whitened; without them no
    items of similar text join. Where the dataset has no validation rows transitions stay out, with
    a weight of 0.
    """
    prepared = PrepareConfig.model_validate(dataset.manifest.config["prepare"])
    counted = replace(
        count_transitions(dataset, config.transitions),
        returns=count_returns(dataset),
        reach=prepared.longest_history,
    )
    if not dataset.names("valid/"):
        return replace(counted, weight=0.0)
    rows = read_rows(dataset, "valid").slice(0, config.max_validation_rows)
    held_out = zip(histories_of(rows), targets_of(rows), strict=True)
    known = [(history, wanted) for history, wanted in held_out if len(history)]
    if not known:
        return replace(counted, weight=0.0)
    histories, targets = zip(*known, strict=True)
    model, shape = load_model(checkpoint, with_text=False)
    recent = [history.last(shape.max_history) for history in histories]
    users_BD = encode_histories(model, recent, vectors_ND)
    alike = None
    if text_NE is not None and config.alike:
        alike = find_alike(dataset, text_NE, config.alike)
    return choose(counted, users_BD, vectors_ND, histories, targets, alike, config.transitions)


@torch.inference_mode()
def encode_histories(
    model: RecommenderModel, histories: Sequence[History], vectors_ND: torch.Tensor
) -> torch.Tensor:
    """(B, D) the user vector after each history, none empty or longer than the model reads."""
    found = []
    for start in range(0, len(histories), USERS_AT_ONCE):
        some = histories[start : start + USERS_AT_ONCE]
        batch = collate_histories(some, max(len(history) for history in some))
        found.append(model.encode_users(vectors_ND[batch.item_indexes], batch))
    return torch.cat(found)


def count_transitions(dataset: Artifact, kept: int) -> Transitions:
    """The `kept` strongest transitions of each item, from the training windows by Ray Data.

    Only a file's pairs, and then those that start at some of the items, are in memory at once.
    """
    counts = _train_counts(dataset)
    events = ray.put(np.maximum(1, counts))

    def keep_strongest(block: pa.Table) -> pa.Table:
        return strongest(block, ray.get(events), kept)

    return assemble(_by_item(dataset, pairs_of, keep_strongest), len(counts))


def count_returns(dataset: Artifact) -> np.ndarray:
    """(N + 1,) how readily each item is taken again, from the training windows by Ray Data."""

    def add_up(block: pa.Table) -> pa.Table:
        sums = block.group_by(FROM).aggregate([(HELD, "sum"), (RETURNED, "sum")])
        return sums.rename_columns([FROM, HELD, RETURNED])

    return return_strengths(_by_item(dataset, returns_of, add_up), len(_train_counts(dataset)))


def find_alike(dataset: Artifact, text_NE: torch.Tensor, kept: int) -> pa.Table | None:
    """(from, to, sum) of the `kept` items with texts most like each item's, by Ray Data.

    None where no item has text, or none is like another: whitened vectors of fewer items than they
    have numbers are all at right angles.
    """
    items = dataset.read_table("items.parquet")
    told = readable(items, dataset.manifest.config["prepare"]["text_fields"])
    if not told.any():
        return None
    vectors, counts = ray.put(text_vectors(text_NE, told).numpy()), ray.put(_train_counts(dataset))

    def find(block: pa.Table) -> pa.Table:
        # What Ray stores is read-only, which torch warns of.
        vectors_NE = torch.from_numpy(ray.get(vectors).copy())
        return alike_pairs(vectors_NE, ray.get(counts), block["item"].to_numpy(), kept)

    asked = pa.table({"item": np.flatnonzero(told)})
    blocks = [asked.slice(at, ITEMS_AT_ONCE) for at in range(0, len(asked), ITEMS_AT_ONCE)]
    found = ray.data.from_arrow(blocks).map_batches(find, batch_size=None, batch_format="pyarrow")
    tables = [table for table in _tables(found) if len(table)]
    return pa.concat_tables(tables) if tables else None


def _train_counts(dataset: Artifact) -> np.ndarray:
    """(N,) training events of each item."""
    found = dataset.read_table("items.parquet", [schema.TRAIN_COUNT])
    return found[schema.TRAIN_COUNT].to_numpy()


def _by_item(
    dataset: Artifact,
    count: Callable[[pa.Table], pa.Table],
    combine: Callable[[pa.Table], pa.Table],
) -> pa.Table:
    """What `count` says of each training file, and `combine` of all that is `from` an item."""
    uri, names, columns = dataset.uri, dataset.names("train/"), [schema.ITEM_INDEXES]

    def read(block: pa.Table) -> pa.Table:
        opened = open_artifact(uri, "dataset", check=False)
        return pa.concat_tables(
            [count(opened.read_table(name["item"], columns)) for name in block.to_pylist()]
        )

    counted = ray.data.from_items(names, override_num_blocks=max(1, len(names))).map_batches(
        read, batch_size=None, batch_format="pyarrow"
    )
    combined = counted.repartition(max(1, len(names)), keys=[FROM]).map_batches(
        combine, batch_size=None, batch_format="pyarrow"
    )
    return pa.concat_tables(_tables(combined))


def _tables(found: ray.data.Dataset) -> Iterator[pa.Table]:
    tables = found.iter_batches(batch_size=None, batch_format="pyarrow")
    return cast(Iterator[pa.Table], tables)

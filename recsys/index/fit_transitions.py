"""The transitions of a whole dataset: counted by Ray Data, weighed on its validation rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from recsys.index.transitions import FROM, Transitions, assemble, choose, pairs_of, strongest
from recsys.models.build import load_model
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History

USERS_AT_ONCE = 256


def fit_transitions(
    config: IndexConfig, dataset: Artifact, checkpoint: Artifact, vectors_ND: torch.Tensor
) -> Transitions:
    """The dataset's transitions, weighed so that they do best beside these vectors.

    Where the dataset has no validation rows they stay out, with a weight of 0.
    """
    counted = count_transitions(dataset, config.transitions)
    prepared = PrepareConfig.model_validate(dataset.manifest.config["prepare"])
    counted = replace(counted, reach=prepared.longest_history)
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
    users_BD = _encode(model, recent, vectors_ND)
    return choose(counted, users_BD, vectors_ND, histories, targets)


@torch.inference_mode()
def _encode(
    model: RecommenderModel, histories: Sequence[History], vectors_ND: torch.Tensor
) -> torch.Tensor:
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
    counts = dataset.read_table("items.parquet", [schema.TRAIN_COUNT])[schema.TRAIN_COUNT]
    events = ray.put(np.maximum(1, counts.to_numpy()))
    uri, names = dataset.uri, dataset.names("train/")

    def read_pairs(block: pa.Table) -> pa.Table:
        opened = open_artifact(uri, "dataset", check=False)
        return pa.concat_tables(
            [pairs_of(opened.read_table(name["item"])) for name in block.to_pylist()]
        )

    def keep_strongest(block: pa.Table) -> pa.Table:
        return strongest(block, ray.get(events), kept)

    pairs = ray.data.from_items(names, override_num_blocks=max(1, len(names))).map_batches(
        read_pairs, batch_size=None, batch_format="pyarrow"
    )
    found = pairs.repartition(max(1, len(names)), keys=[FROM]).map_batches(
        keep_strongest, batch_size=None, batch_format="pyarrow"
    )
    tables = found.iter_batches(batch_size=None, batch_format="pyarrow")
    return assemble(pa.concat_tables(cast(Iterator[pa.Table], tables)), len(counts))

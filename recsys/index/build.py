"""The index stage: checkpoint + dataset -> `index` artifact."""

from __future__ import annotations

from typing import Any

import torch

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import IndexConfig
from recsys.index.embed import embed_items
from recsys.index.fit_transitions import fit_transitions
from recsys.index.item_index import VECTORS, make_index, popularity_order, save_index
from recsys.index.transitions import TRANSITIONS, save_transitions

CATALOGUE_COLUMNS = (
    "title",
    "category",
    "brand",
    "price",
    schema.TRAIN_COUNT,
    schema.REMOVED,
)


def build_index(
    config: IndexConfig, dataset: Artifact, checkpoint: Artifact, output: str
) -> Artifact:
    """Encode every item and write vectors, transitions and catalogue: all that serving needs of
    the items.

    Of items with one score the one with more training events comes first.
    """
    vectors = embed_items(dataset, checkpoint, config)
    items = dataset.read_table("items.parquet")
    counts = torch.as_tensor(items[schema.TRAIN_COUNT].to_numpy().copy())
    removed = torch.tensor(items[schema.REMOVED].to_pylist())
    kept = [name for name in (schema.ITEM_ID, *CATALOGUE_COLUMNS) if name in items.column_names]
    index = make_index(vectors, config.precision, popularity_order(counts), removed)
    writer = ArtifactWriter(output, "index")
    writer.add_bytes(VECTORS, save_index(index))
    writer.add_table("items.parquet", items.select(kept))
    facts = _facts(config, vectors)
    if config.transitions:
        fitted = fit_transitions(config, dataset, checkpoint, vectors)
        writer.add_bytes(TRANSITIONS, save_transitions(fitted))
        facts["transitions"] = {"weight": fitted.weight, "decay": fitted.decay}
    return writer.publish(
        {"index": config.model_dump(mode="json")},
        {"dataset": dataset.digest, "checkpoint": checkpoint.digest},
        facts,
    )


def _facts(config: IndexConfig, vectors: torch.Tensor) -> dict[str, Any]:
    return {
        "kind": "exact" if config.precision == "fp32" else config.precision,
        "num_items": len(vectors),
        "embedding_size": vectors.shape[1],
    }

"""The index stage: checkpoint + dataset -> `index` artifact."""

from __future__ import annotations

import torch

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import IndexConfig
from recsys.index.embed import embed_items
from recsys.index.item_index import VECTORS, ExactIndex, save_index

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
    """Encode every item and write vectors and catalogue, all that serving needs of the items.

    Of items with one score the one with more training events comes first.
    """
    vectors = embed_items(dataset, checkpoint, config)
    items = dataset.read_table("items.parquet")
    counts = torch.as_tensor(items[schema.TRAIN_COUNT].to_numpy().copy())
    order = counts.argsort(descending=True, stable=True)
    removed = torch.tensor(items[schema.REMOVED].to_pylist())
    kept = [name for name in (schema.ITEM_ID, *CATALOGUE_COLUMNS) if name in items.column_names]
    writer = ArtifactWriter(output, "index")
    writer.add_bytes(VECTORS, save_index(ExactIndex(vectors, order, removed)))
    writer.add_table("items.parquet", items.select(kept))
    return writer.publish(
        {"index": config.model_dump(mode="json")},
        {"dataset": dataset.digest, "checkpoint": checkpoint.digest},
        {"kind": "exact", "num_items": len(items), "embedding_size": vectors.shape[1]},
    )

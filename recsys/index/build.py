"""The index stage: checkpoint + dataset -> `index` artifact."""

from __future__ import annotations

from typing import Any

import torch

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import IndexConfig, SearchConfig
from recsys.data.users import USERS
from recsys.index.approximate import chosen_kind
from recsys.index.build_search import add_search
from recsys.index.catalogue_time import keep_catalogue_time
from recsys.index.embed import embed_items
from recsys.index.fit_transitions import fit_transitions
from recsys.index.item_columns import kept_columns
from recsys.index.item_index import (
    VECTORS,
    Ranking,
    make_index,
    popularity_order,
    save_index,
)
from recsys.index.queries import queries_digest
from recsys.index.recall import add_approximate
from recsys.index.segment_popularity import SEGMENTS, count_segments
from recsys.index.transitions import TRANSITIONS, save_transitions


def build_index(
    config: IndexConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    output: str,
    search: SearchConfig | None = None,
) -> Artifact:
    """Encode every item and write vectors, transitions, catalogue, what segments of users take most
    and what search needs: all that serving needs of the items.

    Of items with one score the one with more training events comes first.

    Raises:
        ValueError: FAISS is needed and not installed, or finds too little.
    """
    search = search or SearchConfig()
    items = dataset.read_table("items.parquet")
    chosen_kind(config, len(items))  # a package that is missing is told before the encoder works
    vectors, text = embed_items(dataset, checkpoint, config)
    counts = torch.as_tensor(items[schema.TRAIN_COUNT].to_numpy().copy())
    removed = torch.tensor(items[schema.REMOVED].to_pylist())
    index = make_index(vectors, config.precision, popularity_order(counts), removed)
    writer = ArtifactWriter(output, "index")
    writer.add_bytes(VECTORS, save_index(index))
    writer.add_table("items.parquet", items.select(kept_columns(items)))
    keep_catalogue_time(writer, dataset)
    facts = _facts(config, vectors)
    facts |= add_approximate(writer, config, index, vectors, dataset, checkpoint)
    if config.transitions:
        fitted = fit_transitions(config, dataset, checkpoint, vectors, text)
        writer.add_bytes(TRANSITIONS, save_transitions(fitted))
        facts["transitions"] = {
            "weight": fitted.weight,
            "decay": fitted.decay,
            "again": fitted.again,
            "alike": fitted.alike,
            "reach": fitted.reach,
        }
    if search.enabled:
        ranking = Ranking(len(items), popularity_order(counts), removed)
        facts["search"] = add_search(writer, search, dataset, checkpoint, text, ranking)
    if USERS in dataset.names():
        users = dataset.read_table(USERS)
        segments = count_segments(dataset, users, removed.numpy(), config.min_segment_users)
        writer.add_table(SEGMENTS, segments)
    return writer.publish(
        index_settings(config, search), index_parents(search, dataset, checkpoint), facts
    )


def index_settings(config: IndexConfig, search: SearchConfig) -> dict[str, Any]:
    """What the manifest of an index says of the config."""
    return {"index": config.model_dump(mode="json"), "search": search.model_dump(mode="json")}


def index_parents(search: SearchConfig, dataset: Artifact, checkpoint: Artifact) -> dict[str, str]:
    """The digests of what an index is made from, the queries it learns from among them."""
    parents = {"dataset": dataset.digest, "checkpoint": checkpoint.digest}
    learns = search.enabled and search.queries
    return parents | ({"queries": queries_digest(search.queries)} if learns else {})


def _facts(config: IndexConfig, vectors: torch.Tensor) -> dict[str, Any]:
    return {
        "precision": config.precision,
        "num_items": len(vectors),
        "embedding_size": vectors.shape[1],
    }

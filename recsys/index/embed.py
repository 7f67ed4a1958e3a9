"""All items of a dataset through an encoder, by Ray Data actors.

Each actor holds one encoder; tokens go in and vectors come out, in any order, and are put in
place by item_index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pyarrow as pa
import ray
import torch

from recsys import schema
from recsys.artifact import Artifact, open_artifact
from recsys.config import IndexConfig, ModelConfig
from recsys.data.vocabulary import ItemVocabulary
from recsys.index.item_vectors import item_vectors
from recsys.models.backbone import load_text_encoder, pad_tokens
from recsys.models.build import ITEMS, load_model

VECTOR = "vector"

EncodeItems = Callable[[np.ndarray, list[list[int]]], torch.Tensor]
"""Item indexes (n,) and their token ids -> float32 vectors (n, width)."""


def embed_text(dataset: Artifact, model: ModelConfig, index: IndexConfig) -> torch.Tensor:
    """(N, E) text vectors of all items by the pretrained backbone alone, not whitened."""
    return embed_tokens(_tokens(dataset), model, index)


def embed_tokens(items: pa.Table, model: ModelConfig, index: IndexConfig) -> torch.Tensor:
    """As `embed_text`, of the texts whose `token_ids` stand at `item_index` 0 to N-1 of a table."""

    def make_encoder() -> EncodeItems:
        encoder = load_text_encoder(model).eval().to(_device(index))
        return lambda _, tokens: encoder(pad_tokens(tokens).to(_device(index)))

    return _embed(items, make_encoder, index)


def embed_items(
    dataset: Artifact, checkpoint: Artifact, index: IndexConfig
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(N, D) item vectors by the checkpoint's item encoder, and (N, E) the vectors of their texts
    by its language model, not whitened; None where it has none.

    The dataset may be a newer one than the checkpoint was trained on: new items have no ID yet.
    """
    uri, trained = checkpoint.uri, trained_indexes(dataset, checkpoint)
    width = ModelConfig.model_validate(checkpoint.manifest.config["model"]).embedding_size

    def make_encoder() -> EncodeItems:
        model, _ = load_model(open_artifact(uri, "checkpoint", check=False))
        model = model.to(_device(index))

        def encode(item_indexes: np.ndarray, tokens: list[list[int]]) -> torch.Tensor:
            rows = torch.as_tensor(trained[item_indexes].astype(np.int64), device=_device(index))
            vectors, text = item_vectors(model, model.text_encoder, rows, tokens)
            return vectors if text is None else torch.cat([vectors, text], dim=1)

        return encode

    found = _embed(_tokens(dataset), make_encoder, index)
    vectors, text = found.tensor_split([width], dim=1)
    return vectors.contiguous(), text.contiguous() if text.shape[1] else None


def _tokens(dataset: Artifact) -> pa.Table:
    return dataset.read_table("items.parquet", [schema.ITEM_INDEX, schema.TOKEN_IDS])


def trained_indexes(dataset: Artifact, checkpoint: Artifact) -> np.ndarray:
    """(N,) the row in training of each item of the dataset, `UNSEEN` where it had none."""
    known = ItemVocabulary(checkpoint.read_table(ITEMS)[schema.ITEM_ID])
    ids = dataset.read_table("items.parquet", [schema.ITEM_ID])[schema.ITEM_ID].to_pylist()
    return known.indexes_of(ids)


def _device(index: IndexConfig) -> torch.device:
    return torch.device("cuda" if index.use_gpu else "cpu")


class _Encoder:
    """A Ray Data actor around one encoder."""

    def __init__(self, make_encoder: Callable[[], EncodeItems]) -> None:
        torch.set_num_threads(1)
        self._encode = make_encoder()

    def __call__(self, block: pa.Table) -> pa.Table:
        indexes = block[schema.ITEM_INDEX].to_numpy()
        with torch.inference_mode():
            vectors = self._encode(indexes, block[schema.TOKEN_IDS].to_pylist()).float().cpu()
        width = vectors.shape[1]
        flat = pa.array(vectors.numpy().ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, width)
        return pa.table({schema.ITEM_INDEX: indexes, VECTOR: lists})


def _embed(
    items: pa.Table, make_encoder: Callable[[], EncodeItems], index: IndexConfig
) -> torch.Tensor:
    tokens = items.select([schema.ITEM_INDEX, schema.TOKEN_IDS])
    blocks = _by_length(tokens, index.batch_size)
    encoded = ray.data.from_arrow(blocks).map_batches(
        _Encoder,
        fn_constructor_args=(make_encoder,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(index.num_workers, len(blocks))),
        num_cpus=1,
        num_gpus=1 if index.use_gpu else None,
    )
    vectors = torch.empty(0)
    for block in encoded.iter_batches(batch_size=None, batch_format="pyarrow"):
        rows, values = _vectors_of(cast(pa.Table, block))
        if not len(vectors):
            vectors = torch.empty(len(items), values.shape[1])
        vectors[rows] = values
    return vectors


def _vectors_of(block: pa.Table) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.as_tensor(block[schema.ITEM_INDEX].to_numpy().copy())
    flat = block[VECTOR].combine_chunks().flatten().to_numpy()
    return rows, torch.as_tensor(flat.copy()).view(len(rows), -1)


def _by_length(items: pa.Table, batch_size: int) -> list[pa.Table]:
    """Blocks of items of similar length, so that little of a batch is padding."""
    lengths = np.diff(items[schema.TOKEN_IDS].combine_chunks().offsets.to_numpy())
    ordered = items.take(pa.array(np.argsort(lengths, kind="stable")))
    return [ordered.slice(start, batch_size) for start in range(0, len(ordered), batch_size)]

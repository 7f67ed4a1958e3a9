"""A frozen language model's text vectors of all items, made once on the driver for all ranks."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import torch
from safetensors.torch import load, save

from recsys import schema
from recsys.artifact import Artifact, open_artifact, write_file
from recsys.config import IndexConfig, ModelConfig, TrainingConfig
from recsys.data.paraphrase import paraphrases_of
from recsys.data.tokenize import load_tokenizer, tokenize
from recsys.index.embed import embed_text, embed_tokens
from recsys.models.backbone import fit_whitening
from recsys.models.warm_start import read_whitening
from recsys.pretrained import backbone_digest
from recsys.storage import has_file, read_bytes

TEXT_VECTORS, PARAPHRASES = "text_vectors", "paraphrases"
MEAN, WHITENING = "mean", "whitening"


def cache_text(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, run_uri: str
) -> str | None:
    """URI of the file with the vectors, made unless it is already there; None where none are used.

    It holds `text_vectors` (N, E), with `mean` and `whitening` where the model whitens, and
    `paraphrases` (V, N, E) where items are read in other words.

    Raises:
        ValueError: the file of paraphrases cannot be used.
    """
    if model.item_features == "id" or model.tuning != "frozen":
        return None
    start = open_start(training)
    uri = f"{run_uri}/{_name(model, training, dataset, start)}"
    if not has_file(uri):
        tensors = _text_tensors(model, training, dataset, start)
        write_file(run_uri, uri.removeprefix(f"{run_uri}/"), save(tensors))
    return uri


def open_start(training: TrainingConfig) -> Artifact | None:
    """The checkpoint that training starts from, if it starts from one."""
    return open_artifact(training.start_from, "checkpoint") if training.start_from else None


def read_whitening_of(uri: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (E,) and whitening (E, E) of the vectors in a file of `cache_text`."""
    tensors = load(read_bytes(uri))
    return tensors[MEAN], tensors[WHITENING]


def _name(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, start: Artifact | None
) -> str:
    items = next(f.sha256 for f in dataset.manifest.files if f.path == "items.parquet")
    told = [items, model.backbone, model.pooling, model.backbone_precision, str(model.whiten)]
    told += [backbone_digest(model.backbone), start.digest if start else ""]
    augment = training.augment
    if augment.paraphrase:
        given = hashlib.sha256(read_bytes(augment.paraphrases)) if augment.paraphrases else None
        told += [given.hexdigest() if given else f"{augment.num_paraphrases} {training.seed}"]
    return f"text_vectors_{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.safetensors"


def _text_tensors(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, start: Artifact | None
) -> dict[str, torch.Tensor]:
    index = IndexConfig(num_workers=training.num_workers, use_gpu=training.use_gpu)
    text_NE = embed_text(dataset, model, index)
    tensors = {TEXT_VECTORS: text_NE}
    if training.augment.paraphrase:
        tokens = _paraphrased_tokens(model, training, dataset)
        others = embed_tokens(tokens, model, index)
        tensors[PARAPHRASES] = others.view(-1, *text_NE.shape)
    if not model.whiten:
        return tensors
    mean_E, whitening_EE = read_whitening(start) if start else fit_whitening(text_NE)
    whitened = {name: (vectors - mean_E) @ whitening_EE for name, vectors in tensors.items()}
    return {**whitened, MEAN: mean_E, WHITENING: whitening_EE}


def _paraphrased_tokens(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact
) -> pa.Table:
    """The items again and again in other words, numbered through."""
    items = dataset.read_table("items.parquet", [schema.ITEM_ID, schema.TEXT])
    texts = paraphrases_of(items, training.augment, training.seed)
    longest = dataset.manifest.config["prepare"]["max_item_tokens"]
    tokens = tokenize(load_tokenizer(model.backbone), texts, longest)
    columns = {schema.ITEM_INDEX: range(len(tokens)), schema.TOKEN_IDS: tokens}
    types = {schema.ITEM_INDEX: pa.int32(), schema.TOKEN_IDS: pa.list_(pa.int32())}
    return pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})

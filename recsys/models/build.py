"""The only two constructors of a model: from a config, and from a checkpoint artifact."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load, save
from transformers import AutoConfig, PreTrainedTokenizerBase

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig
from recsys.models.backbone import TextEncoder, load_text_encoder
from recsys.models.item_encoder import HybridItemEncoder, IdItemEncoder, TextItemEncoder
from recsys.models.recommender_model import RecommenderModel
from recsys.models.user_encoder import HybridUserEncoder, UserEncoder
from recsys.pretrained import resolve_backbone

WEIGHTS = "model.safetensors"
BACKBONE = "backbone"
ITEMS = "items.parquet"
"""The `item_id` of each row that the model knows an item by."""


class ModelShape(BaseModel):
    """What a model takes from its dataset and its backbone; `text_size` is 0 without text."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_items: int
    max_history: int
    num_events: int
    text_size: int


def text_size(config: ModelConfig) -> int:
    """Width of the backbone's vectors, read from its own config; 0 for a model of IDs."""
    if config.item_features == "id":
        return 0
    return AutoConfig.from_pretrained(resolve_backbone(config.backbone)).hidden_size


def build_model(
    config: ModelConfig, shape: ModelShape, text_encoder: TextEncoder | None = None
) -> RecommenderModel:
    """A fresh model; weights follow torch's global seed.

    Without a `text_encoder`, text vectors come with the items.
    """
    return RecommenderModel(
        _item_encoder(config, shape), _user_encoder(config, shape), text_encoder
    )


def _item_encoder(
    config: ModelConfig, shape: ModelShape
) -> TextItemEncoder | IdItemEncoder | HybridItemEncoder:
    size = config.embedding_size // config.num_parts
    ids = IdItemEncoder(min(shape.num_items, config.id_rows), size)
    if config.item_features == "id":
        return ids
    text = TextItemEncoder(shape.text_size, config.projection_size, size)
    if config.item_features == "text":
        return text
    return HybridItemEncoder(text, ids, shape.num_items)


def _user_encoder(config: ModelConfig, shape: ModelShape) -> UserEncoder | HybridUserEncoder:
    parts = [
        UserEncoder(
            embedding_size=config.embedding_size // config.num_parts,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            max_history=shape.max_history,
            num_events=shape.num_events,
            dropout=config.dropout,
            use_time=config.use_time,
        )
        for _ in range(config.num_parts)
    ]
    return parts[0] if len(parts) == 1 else HybridUserEncoder(*parts)


def save_model(
    model: RecommenderModel, writer: ArtifactWriter, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write weights (float32 safetensors) and, for text models, the backbone in its own format."""
    weights = {
        name: tensor.detach().float().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("text_encoder.backbone.")
    }
    writer.add_bytes(WEIGHTS, save(weights))
    if model.text_encoder is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        model.text_encoder.backbone.save_pretrained(folder)  # pyright: ignore
        tokenizer.save_pretrained(folder)
        writer.add_directory(Path(folder), BACKBONE)


def load_model(checkpoint: Artifact, with_text: bool = True) -> tuple[RecommenderModel, ModelShape]:
    """The trained model of a checkpoint artifact, ready for inference.

    Without `with_text` the language model is left out, as where all items are already vectors.
    """
    config = ModelConfig.model_validate(checkpoint.manifest.config["model"])
    shape = ModelShape.model_validate(checkpoint.manifest.facts["shape"])
    weights = load(checkpoint.read_bytes(WEIGHTS))
    text_encoder = None
    if with_text and config.item_features != "id":
        with tempfile.TemporaryDirectory() as folder:
            directory = checkpoint.download(BACKBONE, Path(folder))
            text_encoder = load_text_encoder(config, directory)
    else:
        weights = {k: v for k, v in weights.items() if not k.startswith("text_encoder.")}
    model = build_model(config, shape, text_encoder)
    _load_weights(model, weights, checkpoint.uri)
    return model.eval().requires_grad_(False), shape


def _load_weights(model: RecommenderModel, weights: dict[str, torch.Tensor], uri: str) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = [name for name in missing if not name.startswith("text_encoder.backbone.")]
    if lacking or unexpected:
        raise ValueError(
            f"{uri}: weights do not fit the config: missing {lacking}, unexpected {unexpected}"
        )

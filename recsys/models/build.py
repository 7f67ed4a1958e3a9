"""The only two constructors of a model: from a config, and from a checkpoint artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load, save
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig
from recsys.models.backbone import TextEncoder, load_text_encoder
from recsys.models.heads import Heads, HeadSize, names_of_heads
from recsys.models.item_encoder import HybridItemEncoder, IdItemEncoder, TextItemEncoder
from recsys.models.recommender_model import RecommenderModel
from recsys.models.sequence.gru import GruLayers
from recsys.models.sequence.hstu import HstuLayers
from recsys.models.sequence.language_model import LanguageModelLayers, load_body
from recsys.models.sequence.layers import SequenceLayers
from recsys.models.sequence.transformer import TransformerLayers
from recsys.models.user_encoder import HybridUserEncoder, UserEncoder
from recsys.pretrained import resolve_backbone

WEIGHTS = "model.safetensors"
BACKBONE = "backbone"
LOG = "training_log.json"
SCORE = "valid_ndcg@10"
"""Of the log's rows of an epoch, the number that the best epoch is chosen by."""
USER_BACKBONE = "user_backbone"
"""The architecture of a user backbone; its weights are among the model's own."""
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
    config: ModelConfig,
    shape: ModelShape,
    text_encoder: TextEncoder | None = None,
    user_architecture: PreTrainedConfig | None = None,
) -> RecommenderModel:
    """A fresh model; weights follow torch's global seed.

    Without a `text_encoder`, text vectors come with the items. With a `user_architecture` a user
    backbone has random weights in place of its pretrained ones.
    """
    return RecommenderModel(
        _item_encoder(config, shape),
        _user_encoder(config, shape, user_architecture),
        text_encoder,
        config.temperature,
        config.learn_temperature,
    )


def add_heads(
    model: RecommenderModel, names: Sequence[str], config: ModelConfig, shape: ModelShape
) -> None:
    """Give a model fresh heads of these names, if any."""
    if names:
        size = HeadSize(config.embedding_size, config.num_parts, shape.num_items)
        model.heads = Heads(names, size)


def _item_encoder(
    config: ModelConfig, shape: ModelShape
) -> TextItemEncoder | IdItemEncoder | HybridItemEncoder:
    size = config.part_size
    ids = IdItemEncoder(min(shape.num_items, config.id_rows), size)
    if config.item_features == "id":
        return ids
    text = TextItemEncoder(shape.text_size, config.projection_size, size)
    if config.item_features == "text":
        return text
    return HybridItemEncoder(text, ids, shape.num_items)


def _user_encoder(
    config: ModelConfig, shape: ModelShape, architecture: PreTrainedConfig | None
) -> UserEncoder | HybridUserEncoder:
    parts = [
        UserEncoder(
            config,
            shape.max_history,
            shape.num_events,
            lambda: _sequence_layers(config, shape, architecture),
        )
        for _ in range(config.num_parts)
    ]
    return parts[0] if len(parts) == 1 else HybridUserEncoder(*parts)


def _sequence_layers(
    config: ModelConfig, shape: ModelShape, architecture: PreTrainedConfig | None
) -> SequenceLayers:
    size, num_layers, heads = config.part_size, config.num_layers, config.num_heads
    if config.user_encoder == "hstu":
        return HstuLayers(
            size, num_layers, heads, config.dropout, shape.max_history, config.use_time
        )
    if config.user_encoder == "gru":
        return GruLayers(size, num_layers, config.dropout)
    if config.user_encoder == "language_model":
        assert config.user_backbone is not None
        body = load_body(config.user_backbone, shape.max_history, architecture)
        if config.activation_checkpointing:
            body.activation_checkpointing_enable()
        return LanguageModelLayers(size, body)
    return TransformerLayers(size, num_layers, heads, config.dropout)


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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if model.text_encoder is not None:
            model.text_encoder.backbone.save_pretrained(folder / BACKBONE)  # pyright: ignore
            tokenizer.save_pretrained(folder / BACKBONE)
            writer.add_directory(folder / BACKBONE, BACKBONE)
        for layers in _language_models(model)[:1]:  # those of a hybrid model's halves are alike
            layers.body.config.save_pretrained(folder / USER_BACKBONE)
            writer.add_directory(folder / USER_BACKBONE, USER_BACKBONE)


def _language_models(model: RecommenderModel) -> list[LanguageModelLayers]:
    return [m for m in model.user_encoder.modules() if isinstance(m, LanguageModelLayers)]


def load_model(checkpoint: Artifact, with_text: bool = True) -> tuple[RecommenderModel, ModelShape]:
    """The trained model of a checkpoint artifact, ready for inference.

    Without `with_text` the language model is left out, as where all items are already vectors.
    """
    config = ModelConfig.model_validate(checkpoint.manifest.config["model"])
    shape = ModelShape.model_validate(checkpoint.manifest.facts["shape"])
    weights = load(checkpoint.read_bytes(WEIGHTS))
    text_encoder, architecture = None, None
    with tempfile.TemporaryDirectory() as folder:
        if with_text and config.item_features != "id":
            directory = checkpoint.download(BACKBONE, Path(folder))
            text_encoder = load_text_encoder(config, directory)
        if config.user_encoder == "language_model":
            directory = checkpoint.download(USER_BACKBONE, Path(folder))
            architecture = AutoConfig.from_pretrained(directory)
    if text_encoder is None:
        weights = {k: v for k, v in weights.items() if not k.startswith("text_encoder.")}
    model = build_model(config, shape, text_encoder, architecture)
    add_heads(model, names_of_heads(weights), config, shape)
    _load_weights(model, weights, checkpoint.uri)
    return model.eval().requires_grad_(False), shape


def add_whitening(text_encoder: TextEncoder, checkpoint: Artifact) -> None:
    """Let a checkpoint's language model that was loaded by itself whiten as in its model."""
    weights, prefix = load(checkpoint.read_bytes(WEIGHTS)), "text_encoder."
    text_encoder.set_whitening(weights[f"{prefix}whitening_mean"], weights[f"{prefix}whitening"])


def _load_weights(model: RecommenderModel, weights: dict[str, torch.Tensor], uri: str) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = [name for name in missing if not name.startswith("text_encoder.backbone.")]
    if lacking or unexpected:
        raise ValueError(
            f"{uri}: weights do not fit the config: missing {lacking}, unexpected {unexpected}"
        )

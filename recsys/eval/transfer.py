"""A checkpoint on a catalogue that it was not trained on, without any training on that one."""

from __future__ import annotations

import torch
from torch import nn

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig
from recsys.data.tokenize import load_tokenizer
from recsys.models.build import ITEMS, LOG, load_model, save_model
from recsys.models.item_encoder import HybridItemEncoder
from recsys.models.recommender_model import RecommenderModel
from recsys.models.user_encoder import UserEncoder
from recsys.models.warm_start import event_rows
from recsys.schema import ITEM_ID


def transfer_checkpoint(checkpoint: Artifact, dataset: Artifact, output: str) -> Artifact:
    """Write the checkpoint in terms of a foreign dataset, as if it had been trained on it.

    - Items are known by their text alone, also where the two catalogues happen to use one id.
      Heads, which know single items too, are left out.
    - Event tables follow the dataset's list of names; one that is new counts as the first.
    - Histories stay as long as the model knows them.

    Index, evaluation and serving then take it as they take any checkpoint of the dataset.

    Raises:
        ValueError: the checkpoint knows items by ID alone, or the dataset was tokenised for
            another language model.
    """
    config = ModelConfig.model_validate(checkpoint.manifest.config["model"])
    check_transfer(config, checkpoint, dataset)
    prepare = dataset.manifest.config["prepare"]
    model, shape = load_model(checkpoint)
    num_items = dataset.manifest.facts["num_items"]
    _forget_items(model, num_items, config.id_rows)
    _name_events(model, event_rows(checkpoint, prepare["events"]))
    shape = shape.model_copy(update={"num_items": num_items, "num_events": len(prepare["events"])})
    writer = ArtifactWriter(output, "checkpoint")
    save_model(model, writer, load_tokenizer(config.backbone))
    writer.add_table(ITEMS, dataset.read_table(ITEMS, [ITEM_ID]))
    writer.add_bytes(LOG, checkpoint.read_bytes(LOG))
    return writer.publish(
        checkpoint.manifest.config,
        {"dataset": dataset.digest, "start_from": checkpoint.digest},
        {"shape": shape.model_dump(), "prepare": prepare},
    )


def check_transfer(model: ModelConfig, checkpoint: Artifact, dataset: Artifact) -> None:
    """What makes a transfer senseless.

    Raises:
        ValueError: as in `transfer_checkpoint`.
    """
    if model.item_features == "id":
        raise ValueError(
            f"{checkpoint.uri} knows items by ID alone (model.item_features 'id') and none of "
            f"{dataset.uri}: take a checkpoint with 'hybrid' or 'text'"
        )
    tokenised_for = dataset.manifest.config["backbone"]
    if tokenised_for != model.backbone:
        raise ValueError(
            f"{dataset.uri} is tokenised for {tokenised_for}, and {checkpoint.uri} reads "
            f"{model.backbone}: prepare the dataset again with model.backbone = "
            f"'{model.backbone}'"
        )


def _forget_items(model: RecommenderModel, num_items: int, id_rows: int) -> None:
    """As many items as the new catalogue has, and none of them seen in training.

    Heads go: they hold numbers of single items, and values in the unit of the old data.
    """
    model.heads = None
    encoder = model.item_encoder
    if not isinstance(encoder, HybridItemEncoder):
        return
    width = encoder.ids.table.embedding_dim
    encoder.ids.table = nn.Embedding.from_pretrained(torch.zeros(min(num_items, id_rows), width))
    encoder.train_counts = torch.zeros(num_items, dtype=torch.int64)


def _name_events(model: RecommenderModel, rows: torch.Tensor) -> None:
    for encoder in model.user_encoder.modules():
        if isinstance(encoder, UserEncoder):
            encoder.event = nn.Embedding.from_pretrained(encoder.event.weight[rows])

"""Sequence models without text, trained by the same trainer as the model they are compared with."""

from __future__ import annotations

from typing import Literal

import torch

from recsys.artifact import Artifact
from recsys.config import AugmentConfig, ModelConfig, PrivacyConfig, TrainingConfig
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Recommender
from recsys.index.item_index import ExactIndex
from recsys.models.build import load_model
from recsys.models.item_encoder import ItemInputs

NUM_NEGATIVES = 256
"""Uniform negatives a step where the model's own training has the whole catalogue. With many
negatives SASRec is as good as its successors (Klenitskiy & Vasilev 2023, arXiv 2309.07602)."""


def sequence_config(
    name: str, model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """What the train stage is to make for a sequence baseline of this name, always from scratch."""
    training = training.model_copy(update={"start_from": None})
    if name == "id_only":
        return id_only_config(model), training
    return {"sasrec": sasrec_config, "gru4rec": gru4rec_config}[name](model, training)


def id_only_config(model: ModelConfig) -> ModelConfig:
    """The sequence model of the same size that knows items by their number alone."""
    tuned = model.user_encoder == "language_model"
    changes = {
        "item_features": "id",
        "tuning": "frozen",
        "activation_checkpointing": model.activation_checkpointing and tuned,
    }
    return model.model_copy(update=changes)


def sasrec_config(
    model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """SASRec (Kang & McAuley 2018, arXiv 1808.09781) of the model's width and budget.

    Its loss is sampled softmax over shared uniform negatives and the batch's own targets,
    corrected for how likely each is, in place of one negative a position.

    Raises:
        ValueError: the model's width does not divide into its attention heads.
    """
    return _plain_model(model, "transformer"), _plain_training(training)


def gru4rec_config(
    model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """GRU4Rec (Hidasi et al. 2016, arXiv 1511.06939) of the model's width and budget.

    The loss is SASRec's here, as its authors too took many negatives later (arXiv 1706.03847).
    """
    return _plain_model(model, "gru"), _plain_training(training)


def _plain_model(model: ModelConfig, user_encoder: Literal["transformer", "gru"]) -> ModelConfig:
    """Item numbers in their order, and nothing else."""
    changes = {
        "user_encoder": user_encoder,
        "user_backbone": None,
        "use_time": False,
        "use_calendar": False,
        "use_repeats": False,
    }
    plain = id_only_config(model).model_dump() | {"activation_checkpointing": False} | changes
    return ModelConfig.model_validate(plain)


def _plain_training(training: TrainingConfig) -> TrainingConfig:
    """The same steps and rates, with sampled negatives and without what is not the paper's."""
    changes = {
        "num_negatives": training.num_negatives or NUM_NEGATIVES,
        "mask_history_negatives": False,
        "rating_weight": 0.0,
        "probability_weight": 0.0,
        "event_weights": {},
        "augment": AugmentConfig().model_dump(),
        "privacy": PrivacyConfig().model_dump(),
    }
    return TrainingConfig.model_validate(training.model_dump() | changes)


def load_sequence(checkpoint: Artifact, catalogue: Catalogue, filter_seen: bool) -> Recommender:
    """The recommender of a checkpoint without text; its item table is its index."""
    model, shape = load_model(checkpoint)
    with torch.inference_mode():
        vectors = model.encode_items(ItemInputs(torch.arange(shape.num_items)))
    events = checkpoint.manifest.facts["prepare"]["events"]
    return Recommender(
        model,
        ExactIndex(vectors, removed_N=catalogue.removed),
        catalogue,
        shape.max_history,
        events,
        filter_seen,
    )

"""Training that starts from the weights of another run, also of one on another catalogue.

Between catalogues the items differ, the names of events and how long histories are. What is carried
over reads texts and histories; what is known of single items is not.

Shapes: E width of a text vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import load

from recsys.artifact import Artifact
from recsys.config import ModelConfig
from recsys.models.build import WEIGHTS
from recsys.models.recommender_model import RecommenderModel

MAY_DIFFER = {
    *("tuning", "lora_rank", "backbone_precision", "activation_checkpointing"),
    *("id_rows", "dropout", "temperature"),
}
"""Settings of a model on which neither shape nor meaning of what is carried over depends."""
CARRIED = ("item_encoder.", "user_encoder.", "text_encoder.whitening", "temperature.")
OF_ITEMS = ("table.weight", "train_counts")
BY_EVENT = ".event.weight"
BY_PLACE = (".position.weight", ".distance.weight")
WHITENING = ("text_encoder.whitening_mean", "text_encoder.whitening")


def check_start(model: ModelConfig, checkpoint: Artifact) -> None:
    """What can be known to fail before any work is done.

    Raises:
        ValueError: the model knows items by ID alone, it differs from the checkpoint's in a
            setting that its weights depend on, or the checkpoint's language model was tuned.
    """
    if model.item_features == "id":
        raise ValueError(
            "with model.item_features 'id' a model knows nothing but single items, so it cannot "
            f"start from {checkpoint.uri}: use 'hybrid' or 'text'"
        )
    told = ModelConfig.model_validate(checkpoint.manifest.config["model"])
    ours, theirs = (m.model_dump(mode="json", exclude=MAY_DIFFER) for m in (model, told))
    differing = [
        f"model.{n} is {ours[n]!r}, not {theirs[n]!r}" for n in ours if ours[n] != theirs[n]
    ]
    if differing:
        raise ValueError(
            f"training cannot start from {checkpoint.uri}: {', '.join(differing)}; "
            "set them as they were there"
        )
    if told.tuning != "frozen":
        raise ValueError(
            f"{checkpoint.uri} has a language model of its own (tuning '{told.tuning}'), and "
            "training starts from the pretrained one: name a checkpoint with tuning 'frozen'"
        )


@torch.no_grad()
def load_initial_weights(
    model: RecommenderModel, checkpoint: Artifact, events: Sequence[str]
) -> None:
    """Copy into a fresh model what a checkpoint knows of texts and of histories.

    - Whole: the projection of text vectors, the user encoders, `id_share`, a learned temperature
      and, where the model has a text encoder, its whitening.
    - By name: the event tables; `events` are the names in the order of the model's rows. One that
      the checkpoint does not have gets the row of its first, which it counts as in serving.
    - By place: the position and distance tables, as many rows as both have.
    - Not at all: ID table, training counts, heads, and the weights of the language model.

    Raises:
        ValueError: a tensor is missing or has another shape; nothing is copied then.
    """
    weights = load(checkpoint.read_bytes(WEIGHTS))
    rows = event_rows(checkpoint, events)
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    unfit: list[str] = []
    for name, tensor in model.state_dict().items():
        if not name.startswith(CARRIED) or name.endswith(OF_ITEMS):
            continue
        source = weights.get(name)
        if source is not None and name.endswith(BY_EVENT):
            source = source[rows]
        if source is not None and name.endswith(BY_PLACE):
            both = min(len(source), len(tensor))
            source, tensor = source[:both], tensor[:both]
        if source is None or source.shape != tensor.shape:
            unfit.append(name)
        else:
            pairs.append((tensor, source))
    if unfit:
        raise ValueError(f"{checkpoint.uri} does not fit the model in {', '.join(unfit)}")
    for tensor, source in pairs:
        tensor.copy_(source)


def event_rows(checkpoint: Artifact, events: Sequence[str]) -> torch.Tensor:
    """For each name the row of the checkpoint's event tables; the first for an unknown name."""
    known = checkpoint.manifest.facts["prepare"]["events"]
    return torch.tensor([known.index(name) if name in known else 0 for name in events])


def read_whitening(checkpoint: Artifact) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (E,) and matrix (E, E) by which the checkpoint whitens text vectors.

    Its projection reads vectors whitened so: whitening fitted to another catalogue turns them.
    """
    weights = load(checkpoint.read_bytes(WEIGHTS))
    return weights[WHITENING[0]], weights[WHITENING[1]]

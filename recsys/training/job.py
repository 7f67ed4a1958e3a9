"""What a training worker is told, and the data it works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load

from recsys import schema
from recsys.artifact import Artifact
from recsys.config import ModelConfig, TrainingConfig
from recsys.data.augment import Augmenter
from recsys.data.collate import histories_of, read_rows, target_values_of, targets_of
from recsys.models.backbone import pack_tokens
from recsys.models.build import ModelShape
from recsys.models.item_encoder import ItemInputs
from recsys.models.warm_start import check_start
from recsys.schema import History
from recsys.storage import read_bytes
from recsys.training.guarantee import check_private
from recsys.training.text_cache import PARAPHRASES, TEXT_VECTORS
from recsys.training.values import check_values

NUM_NEIGHBOURS = 10
"""Items of similar text that augmentation substitutes an item by."""


class TrainJob(BaseModel):
    """One run, as it travels from driver to workers.

    `text_vectors` is the URI of the safetensors file with the frozen backbone's vectors, where
    the run uses them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    model: ModelConfig
    training: TrainingConfig
    shape: ModelShape
    text_vectors: str | None


class CatalogueInputs:
    """What items are encoded from: cached text vectors, tokens, or their index alone."""

    def __init__(
        self,
        job: TrainJob,
        dataset: Artifact,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._device = device
        self._text: torch.Tensor | None = None
        self._paraphrases: torch.Tensor | None = None
        self._paraphrased = job.training.augment.paraphrase
        self._tokens: np.ndarray | None = None
        if job.text_vectors:
            cached = load(read_bytes(job.text_vectors))
            self._text = cached[TEXT_VECTORS].to(device, dtype)
            if self._paraphrased:
                self._paraphrases = cached[PARAPHRASES].to(device, dtype)
        elif job.model.item_features != "id":
            self._tokens = _read_tokens(dataset)
            self._num_tokens = np.array([len(tokens) for tokens in self._tokens], dtype=np.int64)

    def of(self, item_indexes: torch.Tensor, draws: torch.Generator | None = None) -> ItemInputs:
        """The inputs of these items, on the device; with `draws` some are read in other words."""
        rows = item_indexes.to(self._device)
        if self._text is not None:
            whole = len(rows) == len(self._text)
            text = self._text if whole else self._text[rows]
            return ItemInputs(rows, text=self._reworded(text, rows, draws))
        if self._tokens is not None:
            tokens = pack_tokens(self._tokens[item_indexes.numpy()])  # pyright: ignore
            return ItemInputs(rows, tokens=tokens.to(self._device))
        return ItemInputs(rows)

    def _reworded(
        self, text_CE: torch.Tensor, rows: torch.Tensor, draws: torch.Generator | None
    ) -> torch.Tensor:
        if self._paraphrases is None or draws is None:
            return text_CE
        number = len(self._paraphrases)
        chosen = torch.rand(len(rows), generator=draws) < self._paraphrased
        variants = torch.randint(number, (len(rows),), generator=draws)
        others_CE = self._paraphrases[variants.to(self._device), rows]
        return torch.where(chosen.to(self._device)[:, None], others_CE, text_CE)

    def num_tokens(self, item_indexes: torch.Tensor) -> int:
        """Tokens of these items' texts; 0 where the run reads none."""
        if self._tokens is None:
            return 0
        return int(self._num_tokens[item_indexes.numpy()].sum())

    def neighbours(self, count: int) -> np.ndarray:
        """(N, count) the items of the most similar cached text (cosine), without the item itself.

        Takes time in proportion to N squared.
        """
        assert self._text is not None
        return nearest_items(self._text, count)


def nearest_items(vectors_NE: torch.Tensor, count: int, block: int = 1_024) -> np.ndarray:
    """(N, K) rows of the largest cosine to each row, nearest first; K is at most N - 1."""
    unit_NE = F.normalize(vectors_NE.float(), dim=-1)
    found: list[torch.Tensor] = []
    for start in range(0, len(unit_NE), block):
        scores_RN = unit_NE[start : start + block] @ unit_NE.T
        rows_R = torch.arange(len(scores_RN), device=scores_RN.device)
        scores_RN[rows_R, start + rows_R] = -torch.inf
        found.append(scores_RN.topk(min(count, len(unit_NE) - 1)).indices.cpu())
    return torch.cat(found).numpy()


def make_augmenter(training: TrainingConfig, items: CatalogueInputs) -> Augmenter | None:
    """What alters the windows, or None where the config asks for nothing."""
    augment = training.augment
    if not any(augment.shares):
        return None
    neighbours = items.neighbours(NUM_NEIGHBOURS) if augment.substitute else None
    return Augmenter(augment, training.seed, neighbours)


def _read_tokens(dataset: Artifact) -> np.ndarray:
    column = dataset.read_table("items.parquet", [schema.TOKEN_IDS])[schema.TOKEN_IDS]
    rows = np.empty(len(column), dtype=object)
    rows[:] = column.to_pylist()
    return rows


def check_training(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, start: Artifact | None = None
) -> None:
    """What can be known to fail before any work is done; `start` is `training.start_from`.

    Raises:
        ValueError: `event_weights` names an event that the dataset does not have, substitution or
            paraphrases are asked for where there are no cached text vectors, ratings where the
            dataset has no values, a checkpoint to start from does not fit, or the model cannot be
            trained privately.
    """
    read_event_weights(training, dataset)
    if start is not None:
        check_start(model, start)
    if training.rating_weight:
        check_values(dataset)
    if training.privacy.is_on:
        check_private(model, training, dataset)
    cached = model.item_features != "id" and model.tuning == "frozen"
    for name in ("substitute", "paraphrase"):
        if getattr(training.augment, name) and not cached:
            raise ValueError(
                f"training.augment.{name} needs the cached text vectors of a frozen backbone, and "
                f"there are none with model.item_features '{model.item_features}' and model.tuning "
                f"'{model.tuning}': set {name} to 0"
            )


def read_event_weights(training: TrainingConfig, dataset: Artifact) -> np.ndarray | None:
    """(number of events,) float32 weights of targets by event; None where each weighs 1.

    Raises:
        ValueError: a name is not one of the dataset's events.
    """
    if not training.event_weights:
        return None
    names = dataset.manifest.config["prepare"]["events"]
    unknown = sorted(set(training.event_weights) - set(names))
    if unknown:
        raise ValueError(
            f"training.event_weights names {', '.join(unknown)}; the events of {dataset.uri} are "
            f"{', '.join(names)}"
        )
    return np.array([training.event_weights.get(name, 1.0) for name in names], dtype=np.float32)


def read_train_counts(dataset: Artifact) -> torch.Tensor:
    """(N,) number of training events of each item."""
    column = dataset.read_table("items.parquet", [schema.TRAIN_COUNT])[schema.TRAIN_COUNT]
    return torch.as_tensor(column.to_numpy().copy())


@dataclass(frozen=True, slots=True)
class Validation:
    """Histories and their first targets; `values` are the targets' where the dataset keeps them."""

    histories: list[History]
    targets: list[int]
    values: list[float] | None = None


def read_validation(dataset: Artifact, max_rows: int, world_size: int) -> Validation:
    """The rows for validation while training.

    Users without history are left out, and so are up to `world_size - 1` rows, so that every
    rank has the same number.
    """
    if not dataset.names("valid/"):
        return Validation([], [])
    rows = read_rows(dataset, "valid")
    histories, targets, values = histories_of(rows), targets_of(rows), target_values_of(rows)
    known = [row for row, history in enumerate(histories) if len(history)]
    chosen = known[: min(len(known), max_rows) // world_size * world_size]
    return Validation(
        [histories[row] for row in chosen],
        [int(targets[row][0]) for row in chosen],
        None if values is None else [float(values[row][0]) for row in chosen],
    )

"""What a training worker is told, and the data it works on."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load

from recsys import schema
from recsys.artifact import Artifact, filesystem
from recsys.config import ModelConfig, TrainingConfig
from recsys.data.collate import histories_of, read_rows, targets_of
from recsys.models.backbone import pad_tokens
from recsys.models.build import ModelShape
from recsys.models.item_encoder import ItemInputs
from recsys.schema import History

TEXT_VECTORS = "text_vectors"


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
        self._tokens: np.ndarray | None = None
        if job.text_vectors:
            self._text = _read_text(job.text_vectors).to(device, dtype)
        elif job.model.item_features == "text":
            self._tokens = _read_tokens(dataset)

    def of(self, item_indexes: torch.Tensor) -> ItemInputs:
        """The inputs of these items, on the device."""
        rows = item_indexes.to(self._device)
        if self._text is not None:
            whole = len(rows) == len(self._text)
            return ItemInputs(rows, text=self._text if whole else self._text[rows])
        if self._tokens is not None:
            tokens = pad_tokens(self._tokens[item_indexes.numpy()])  # pyright: ignore
            return ItemInputs(rows, tokens=tokens.to(self._device))
        return ItemInputs(rows)


def _read_text(uri: str) -> torch.Tensor:
    fs, path = filesystem(uri)
    with fs.open_input_file(path) as stream:
        return load(stream.read())[TEXT_VECTORS]


def _read_tokens(dataset: Artifact) -> np.ndarray:
    column = dataset.read_table("items.parquet", [schema.TOKEN_IDS])[schema.TOKEN_IDS]
    rows = np.empty(len(column), dtype=object)
    rows[:] = column.to_pylist()
    return rows


def read_train_counts(dataset: Artifact) -> torch.Tensor:
    """(N,) number of training events of each item."""
    column = dataset.read_table("items.parquet", [schema.TRAIN_COUNT])[schema.TRAIN_COUNT]
    return torch.as_tensor(column.to_numpy().copy())


def read_validation(
    dataset: Artifact, max_rows: int, world_size: int
) -> tuple[list[History], list[int]]:
    """Histories and first targets for validation while training.

    Users without history are left out, and so are up to `world_size - 1` rows, so that every
    rank has the same number.
    """
    if not dataset.names("valid/"):
        return [], []
    rows = read_rows(dataset, "valid")
    pairs = [
        (h, int(t[0])) for h, t in zip(histories_of(rows), targets_of(rows), strict=True) if len(h)
    ]
    pairs = pairs[: min(len(pairs), max_rows) // world_size * world_size]
    return [history for history, _ in pairs], [target for _, target in pairs]

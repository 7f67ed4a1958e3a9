"""Queries by meaning: the vectors of texts by a checkpoint's language model, not whitened.

Items and queries meet in the language model's own space. The space of the item encoder is learned
from behaviour: things taken together are close there, also where they are not alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from recsys.artifact import Artifact
from recsys.config import ModelConfig
from recsys.data.tokenize import load_tokenizer, tokenize
from recsys.models.backbone import TextEncoder, load_text_encoder, pad_tokens
from recsys.models.build import BACKBONE

TEXT_VECTORS = "text_vectors.safetensors"
MAX_QUERY_TOKENS = 64
BATCH = 64


class QueryEncoder:
    """Queries -> vectors of length 1, each after the same prompt."""

    def __init__(
        self, encoder: TextEncoder, tokenizer: PreTrainedTokenizerBase, prompt: str = ""
    ) -> None:
        self.text_encoder = encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self._prompt = prompt

    @classmethod
    def load(cls, checkpoint: Artifact, prompt: str) -> Self | None:
        """The language model of a checkpoint; None where its items are known by ID alone."""
        config = ModelConfig.model_validate(checkpoint.manifest.config["model"])
        if config.item_features == "id":
            return None
        with tempfile.TemporaryDirectory() as folder:
            directory = checkpoint.download(BACKBONE, Path(folder))
            tokenizer = load_tokenizer(directory)
            return cls(load_text_encoder(config, directory), tokenizer, prompt)

    @property
    def size(self) -> int:
        """Width of the vectors."""
        return self.text_encoder.size

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, E) float32 vectors."""
        if not texts:
            return torch.empty(0, self.text_encoder.size)
        found = [
            self.text_encoder.pooled(pad_tokens(self._tokens(texts[start : start + BATCH])))
            for start in range(0, len(texts), BATCH)
        ]
        return F.normalize(torch.cat(found), dim=1)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        prompted = [self._prompt + text for text in texts]
        return tokenize(self.tokenizer, prompted, MAX_QUERY_TOKENS)

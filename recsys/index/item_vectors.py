"""Items -> vectors by a checkpoint: the one way, for a whole catalogue and for an item that comes.

Shapes: M items, D embedding size, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from recsys import schema
from recsys.artifact import Artifact
from recsys.config import PrepareConfig
from recsys.data.item_rules import check_items
from recsys.data.tokenize import with_tokens
from recsys.data.vocabulary import ItemVocabulary
from recsys.index.text_vectors import QueryEncoder
from recsys.models.backbone import TextEncoder, pad_tokens
from recsys.models.build import ITEMS, add_whitening
from recsys.models.item_encoder import ItemInputs
from recsys.models.recommender_model import RecommenderModel


def item_vectors(
    model: RecommenderModel,
    text_encoder: TextEncoder | None,
    trained_M: torch.Tensor,
    token_ids: Sequence[Sequence[int]],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(M, D) item vectors, and (M, E) the vectors of their texts, not whitened; None without text.

    `trained_M` are the rows of the items in training, `UNSEEN` for others.
    """
    if text_encoder is None:
        return model.encode_items(ItemInputs(trained_M)), None
    text = text_encoder.pooled(pad_tokens(token_ids).to(trained_M.device))
    return model.encode_items(ItemInputs(trained_M, text=text_encoder.whiten(text))), text


@dataclass(frozen=True)
class EncodedItems:
    """Items as prepare makes them of raw ones, with vectors; `text_ME` have length 1.

    `warnings` counts what prepare would count: values that were not used, by rule.
    """

    items: pa.Table
    vectors_MD: torch.Tensor
    text_ME: torch.Tensor
    warnings: dict[str, int]


class ItemEncoder:
    """Does with single items what prepare and index do with all: clean, tokenise, encode."""

    def __init__(
        self,
        model: RecommenderModel,
        text_encoder: TextEncoder,
        tokenizer: PreTrainedTokenizerBase,
        prepare: PrepareConfig,
        trained: ItemVocabulary,
    ) -> None:
        """`text_encoder` whitens as that of the model's checkpoint."""
        self._model, self._text_encoder, self._tokenizer = model, text_encoder, tokenizer
        self.prepare = prepare
        self._trained = trained

    @classmethod
    def load(
        cls, checkpoint: Artifact, model: RecommenderModel, queries: QueryEncoder | None
    ) -> Self | None:
        """The encoder of a checkpoint, whose model is loaded already, and its language model too
        where `queries` are encoded; None where its items are known by ID alone."""
        queries = queries or QueryEncoder.load(checkpoint, "")
        if queries is None:
            return None
        text_encoder = queries.text_encoder
        add_whitening(text_encoder, checkpoint)
        return cls(
            model,
            text_encoder,
            queries.tokenizer,
            PrepareConfig.model_validate(checkpoint.manifest.facts["prepare"]),
            ItemVocabulary(checkpoint.read_table(ITEMS)[schema.ITEM_ID]),
        )

    def check(self, raw: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """Raw items as prepare cleans them, sorted by id, and what it would warn of."""
        checked = check_items(raw, self.prepare)
        assert len(checked.good) == len(raw), "each item once, with an id"
        return checked.good, checked.warnings

    @torch.no_grad()
    def encode(self, raw: pa.Table) -> EncodedItems:
        """Raw items, each once, with their vectors; sorted by id."""
        items, warnings = self.check(raw)
        fields, longest = self.prepare.text_fields, self.prepare.max_item_tokens
        tokens = with_tokens(items, self._tokenizer, fields, longest)[schema.TOKEN_IDS].to_pylist()
        rows = self._trained.indexes_of(items[schema.ITEM_ID].to_pylist())
        trained = torch.from_numpy(rows).long()
        vectors, text = item_vectors(self._model, self._text_encoder, trained, tokens)
        assert text is not None
        return EncodedItems(items, vectors, F.normalize(text, dim=1), warnings)

"""The probability that a user takes an item, where the model has a head for it.

Shapes: B histories, X pairs of a history and an item, N items, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from recsys import schema
from recsys.artifact import Artifact
from recsys.data.collate import collate_histories
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary
from recsys.engine.catalogue import Catalogue
from recsys.index.item_index import ItemIndex
from recsys.models.build import ITEMS
from recsys.models.heads import ProbabilityHead
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History

Probabilities = list[list[float | None]]


def trained_rows(
    model: RecommenderModel, checkpoint: Artifact, catalogue: Catalogue
) -> np.ndarray | None:
    """(N,) rows in training of a catalogue's items, `UNKNOWN` for others; None without heads."""
    if model.heads is None or model.heads.probability is None:
        return None
    trained = ItemVocabulary(checkpoint.read_table(ITEMS)[schema.ITEM_ID])
    return trained.indexes_of(catalogue.vocabulary.item_ids)


class ProbabilityOf:
    """What `recsys.models.heads.ProbabilityHead` says of pairs of a history and an item.

    `trained_N` are the rows in training of the index's items; None where these are the same. Items
    behind them are new to the model.
    """

    def __init__(
        self,
        model: RecommenderModel,
        index: ItemIndex,
        max_history: int,
        trained_N: np.ndarray | None = None,
    ) -> None:
        self._model = model
        self._index = index
        self._max_history = max_history
        self._trained_N = None if trained_N is None else torch.from_numpy(trained_N).long()

    @torch.inference_mode()
    def of(self, histories: Sequence[History], items: Sequence[Sequence[int]]) -> Probabilities:
        """For each history the probability of each of its items.

        None where the model has no such head, or the history is empty.
        """
        found: Probabilities = [[None] * len(some) for some in items]
        head = None if self._model.heads is None else self._model.heads.probability
        known = [row for row, history in enumerate(histories) if len(history) and len(items[row])]
        if head is None or not known:
            return found
        batch = collate_histories([histories[row] for row in known], self._max_history)
        users_BD = self._model.encode_users(self._index.vectors_of(batch.item_indexes), batch)
        counts = [len(items[row]) for row in known]
        users_XD = users_BD.repeat_interleave(torch.tensor(counts), dim=0)
        values_X = self._values(head, users_XD, torch.tensor([i for r in known for i in items[r]]))
        for row, values in zip(known, values_X.split(counts), strict=True):
            found[row] = values.tolist()
        return found

    def _values(
        self, head: ProbabilityHead, users_XD: torch.Tensor, items_X: torch.Tensor
    ) -> torch.Tensor:
        rows_X = items_X
        if self._trained_N is not None:
            old_X = items_X < len(self._trained_N)
            rows_X = torch.where(old_X, self._trained_N[items_X.where(old_X, 0)], UNKNOWN)
        return head.probabilities(head(users_XD, self._index.vectors_of(items_X), rows_X))

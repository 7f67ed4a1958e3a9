"""What an item is worth to a history: the cosine of their vectors, and what the memory adds.

Shapes: B histories, N items, D embedding size, K results, M items with a bonus for a history.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from recsys.data.collate import collate_histories
from recsys.engine.catalogue import Catalogue
from recsys.engine.stages import stage
from recsys.engine.user_states import UserStates
from recsys.index.item_index import Allowed, ItemIndex, popularity_order
from recsys.index.transitions import Transitions
from recsys.metrics import NO_ITEM
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History


class Scorer:
    """Encodes histories, searches the index, and adds the bonuses of transitions, if any.

    Of items with one score the one with more training events comes first. Up to `states_mb` of
    memory keep what was read of histories.
    """

    def __init__(
        self,
        model: RecommenderModel,
        index: ItemIndex,
        catalogue: Catalogue,
        max_history: int,
        transitions: Transitions | None = None,
        states_mb: int = 0,
    ) -> None:
        self._model = model
        self._index = index
        self._states = UserStates(model, index, max_history, states_mb) if states_mb else None
        self._removed_N = catalogue.removed
        self._place_N = popularity_order(catalogue.train_counts).argsort()
        self._max_history = max_history
        self._transitions = transitions

    @torch.inference_mode()
    def search(
        self,
        histories: Sequence[History],
        top_k: int,
        excluded: list[list[int]],
        allowed: Allowed | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (B, K) each, best first, without each history's `excluded`.

        Where a history has a mask in `allowed`, only items of it come. Where fewer than K items are
        left, the score is minus infinity. No history may be empty.
        """
        users_BD = self._encode(histories)
        with stage("score"):
            found = self._index.search(users_BD, top_k, excluded, allowed)
            if self._transitions is None:
                return found
            bonuses = self._bonuses(users_BD, histories, excluded, allowed)
            return self._merged(found, bonuses, top_k)

    @torch.inference_mode()
    def score(
        self, histories: Sequence[History], items: Sequence[int], older: History | None = None
    ) -> torch.Tensor:
        """(B, number of items) the score of each item; no history may be empty.

        `older` events come before each history, where the memory sees them and the model does not.
        """
        wanted = torch.tensor(items, dtype=torch.int64)
        scores_BK = self._encode(histories) @ self._index.vectors_of(wanted).T
        if self._transitions is None:
            return scores_BK
        whole = histories if older is None else [older.then(history) for history in histories]
        items_BM, bonuses_BM = self._transitions.bonuses(whole)
        for row, (known_M, bonuses_M) in enumerate(zip(items_BM, bonuses_BM, strict=True)):
            same_KM = wanted[:, None] == known_M
            scores_BK[row] += (same_KM * bonuses_M).sum(1)
        return scores_BK

    def _encode(self, histories: Sequence[History]) -> torch.Tensor:
        with stage("encode"):
            if self._states is not None:
                return self._states.encode(histories)
            batch = collate_histories(histories, self._max_history)
            return self._model.encode_users(self._index.vectors_of(batch.item_indexes), batch)

    def _bonuses(
        self,
        users_BD: torch.Tensor,
        histories: Sequence[History],
        excluded: list[list[int]],
        allowed: Allowed | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes (B, M) of the items that have a bonus."""
        assert self._transitions is not None
        items_BM, bonuses_BM = self._transitions.bonuses(histories)
        known_BM = items_BM.clamp_min(0)
        vectors_BMD = self._index.vectors_of(known_BM)
        scores_BM = (vectors_BMD @ users_BD[:, :, None]).squeeze(-1) + bonuses_BM
        barred_BM = self._removed_N[known_BM] | (items_BM == NO_ITEM)
        masks = allowed or [None] * len(excluded)
        for barred_M, known_M, items, mask_N in zip(
            barred_BM, known_BM, excluded, masks, strict=True
        ):
            barred_M |= torch.isin(known_M, torch.tensor(items, dtype=torch.int64))
            if mask_N is not None:
                barred_M |= ~mask_N[known_M]
        return scores_BM.masked_fill(barred_BM, -torch.inf), items_BM

    def _merged(
        self,
        found: tuple[torch.Tensor, torch.Tensor],
        bonuses: tuple[torch.Tensor, torch.Tensor],
        top_k: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best of both. It is exact: a bonus lowers no score, so an item without one that is
        among the best K of all is among the best K by vector."""
        scores_BK, items_BK = found
        scores_BM, items_BM = bonuses
        twice_BK = _in_row(items_BK, items_BM)
        scores = torch.cat([scores_BK.masked_fill(twice_BK, -torch.inf), scores_BM], dim=1)
        items = torch.cat([items_BK, items_BM.clamp_min(0)], dim=1)
        by_place = self._place_N[items].argsort(dim=1)
        scores, items = scores.gather(1, by_place), items.gather(1, by_place)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return scores[:, :top_k], items.gather(1, order)[:, :top_k]


def _in_row(items_BK: torch.Tensor, others_BM: torch.Tensor) -> torch.Tensor:
    """(B, K) whether an item is among the others of its row."""
    stride = int(max(items_BK.max(), others_BM.max() if others_BM.numel() else 0)) + 1
    rows_B1 = stride * np.arange(len(items_BK))[:, None]
    # What fills a row of the others is -1, and must not be an item of the row before.
    others = np.where(others_BM >= 0, rows_B1 + others_BM.numpy(), -1)
    return torch.from_numpy(np.isin(rows_B1 + items_BK.numpy(), others))

"""What the trained model has to beat, ranked the same way on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from recsys.artifact import Artifact
from recsys.config import ModelConfig
from recsys.engine.catalogue import Catalogue
from recsys.engine.popularity import PopularityRanking
from recsys.engine.recommender import POPULAR, Ranked, Recommender
from recsys.index.item_index import ExactIndex
from recsys.models.build import load_model
from recsys.models.item_encoder import ItemInputs
from recsys.schema import History


class Popularity:
    """The same popular items for everyone."""

    def __init__(
        self, train_counts: torch.Tensor, filter_seen: bool, removed: torch.Tensor | None = None
    ) -> None:
        self._ranking = PopularityRanking(train_counts, removed)
        self._filter_seen = filter_seen

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The most popular items, without seen ones where the protocol filters them."""
        rows = zip(histories, top_k, excluded, strict=True)
        return [self._rank_one(history, k, list(out)) for history, k, out in rows]

    def _rank_one(self, history: History, top_k: int, excluded: list[int]) -> Ranked:
        seen = history.item_indexes.tolist() if self._filter_seen else []
        return Ranked(*self._ranking.top(top_k, excluded + seen), POPULAR)


def id_only_config(model: ModelConfig) -> ModelConfig:
    """The sequence model of the same size that knows items by their number alone."""
    return model.model_copy(update={"item_features": "id", "tuning": "frozen"})


def load_id_only(checkpoint: Artifact, catalogue: Catalogue, filter_seen: bool) -> Recommender:
    """The recommender of an ID-only checkpoint; its item table is its index."""
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

"""Baselines by name, made together so that what they share is read and computed once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch

from recsys import schema
from recsys.artifact import Artifact
from recsys.engine.catalogue import Catalogue
from recsys.eval.baselines.popularity import Popularity, recent_counts
from recsys.eval.baselines.scoring import Scorer, ScoringRanker
from recsys.eval.ranking import Ranker

if TYPE_CHECKING:  # these modules need the packages of the extra
    import numpy as np

    from recsys.eval.baselines.content import ContentProfile
    from recsys.eval.baselines.linear import PairFeatures
    from recsys.eval.baselines.neighbours import ItemNeighbours
    from recsys.eval.baselines.training_matrix import TrainingMatrix

EXTRA_PACKAGES = ("implicit", "scipy", "sklearn", "threadpoolctl")
SEQUENCE_NAMES = ("id_only", "sasrec", "gru4rec")
"""Baselines that the train stage trains; each comes as a checkpoint."""

log = logging.getLogger(__name__)


def make_baselines(
    names: Sequence[str],
    dataset: Artifact,
    catalogue: Catalogue,
    filter_seen: bool,
    text: torch.Tensor | None,
) -> dict[str, Ranker]:
    """The baselines of these names, fitted to the dataset's training rows.

    `SEQUENCE_NAMES` among them are left to their checkpoints, and `popularity_7d` is left out,
    with a line in the log, where no training event has a time.

    Args:
        names: any of `NAMES`.
        dataset: the dataset the model was trained on.
        catalogue: its items.
        filter_seen: take the items of a history out of its ranking.
        text: (N, E) the frozen language model's vectors, for `lm_zero_shot`.

    Raises:
        ValueError: a name is unknown, `lm_zero_shot` has no vectors, a package of the extra `eval`
            is missing, or there are more training events than this process should hold.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(
            f"no baseline is called {', '.join(unknown)}; there are {', '.join(NAMES)}"
        )
    shared = _Shared(tuple(names), dataset, catalogue, filter_seen, text)
    found: dict[str, Ranker] = {}
    for name in names:
        if name in SEQUENCE_NAMES:
            continue
        log.info("baseline %s: fitting it", name)
        with _extra_for(name):
            baseline = MAKERS[name](shared)
        if baseline is not None:
            found[name] = baseline
    return found


@contextmanager
def _extra_for(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRA_PACKAGES:
            raise
        raise ValueError(
            f"baseline '{name}' needs the package {package}: install recsys[eval], or take it out "
            "of evaluation.baselines"
        ) from error


class _Shared:
    """What several baselines need, each made when first asked for."""

    def __init__(
        self,
        names: Sequence[str],
        dataset: Artifact,
        catalogue: Catalogue,
        filter_seen: bool,
        text: torch.Tensor | None,
    ) -> None:
        self.names, self.dataset, self.catalogue = names, dataset, catalogue
        self.filter_seen, self.text = filter_seen, text

    def ranker(self, scorer: Scorer) -> ScoringRanker:
        return ScoringRanker(scorer, self.catalogue, self.filter_seen)

    @cached_property
    def matrix(self) -> TrainingMatrix:
        from recsys.eval.baselines.training_matrix import read_training_matrix

        needing = [name for name in self.names if name in MATRIX_NAMES]
        return read_training_matrix(self.dataset, len(self.catalogue), needing)

    @cached_property
    def item_neighbours(self) -> ItemNeighbours:
        from recsys.eval.baselines.neighbours import ItemNeighbours

        return ItemNeighbours(self.matrix.counts)

    @cached_property
    def tfidf(self) -> ContentProfile:
        from recsys.eval.baselines.content import ContentProfile, tfidf_vectors

        table = self.dataset.read_table("items.parquet", [schema.TEXT])
        return ContentProfile(
            tfidf_vectors([text or "" for text in table[schema.TEXT].to_pylist()])
        )

    @cached_property
    def features(self) -> PairFeatures:
        from recsys.eval.baselines.linear import PairFeatures

        return PairFeatures(self.catalogue, self.item_neighbours, self.tfidf)

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        from recsys.eval.baselines.linear import PairFeatures, training_pairs, without_targets
        from recsys.eval.baselines.neighbours import ItemNeighbours

        unaware = ItemNeighbours(without_targets(self.matrix))
        return training_pairs(self.matrix, PairFeatures(self.catalogue, unaware, self.tfidf))


def _popularity(shared: _Shared) -> Ranker:
    catalogue = shared.catalogue
    return Popularity(catalogue.train_counts, shared.filter_seen, catalogue.removed)


def _popularity_7d(shared: _Shared) -> Ranker | None:
    matrix = shared.matrix
    counts = recent_counts(matrix.item_indexes, matrix.timestamps, len(shared.catalogue))
    if counts is None:
        log.info("baseline popularity_7d: left out, no training event has a time")
        return None
    return Popularity(counts, shared.filter_seen, shared.catalogue.removed)


def _item_knn(shared: _Shared) -> Ranker:
    return shared.ranker(shared.item_neighbours)


def _user_knn(shared: _Shared, similarity: Literal["cosine", "pearson"] = "cosine") -> Ranker:
    from recsys.eval.baselines.neighbours import UserNeighbours

    return shared.ranker(UserNeighbours(shared.matrix.counts, similarity=similarity))


def _user_knn_pearson(shared: _Shared) -> Ranker:
    return _user_knn(shared, "pearson")


def _tfidf(shared: _Shared) -> Ranker:
    return shared.ranker(shared.tfidf)


def _lm_zero_shot(shared: _Shared) -> Ranker:
    from recsys.eval.baselines.content import ContentProfile, zero_shot_vectors

    if shared.text is None:
        raise ValueError(
            "baseline 'lm_zero_shot' needs the text vectors of a frozen language model: take it "
            "out of evaluation.baselines"
        )
    return shared.ranker(ContentProfile(zero_shot_vectors(shared.text)))


def _als(shared: _Shared) -> Ranker:
    from recsys.eval.baselines.factors import AlsFactors

    return shared.ranker(AlsFactors(shared.matrix.counts))


def _bpr(shared: _Shared) -> Ranker:
    from recsys.eval.baselines.factors import BprFactors

    return shared.ranker(BprFactors(shared.matrix.counts))


def _bilinear_mf(shared: _Shared) -> Ranker:
    from recsys.eval.baselines.bilinear import BilinearFactors

    return shared.ranker(BilinearFactors(shared.matrix.counts))


def _linear(shared: _Shared, kind: Literal["logistic", "linear_svm"]) -> Ranker:
    from recsys.eval.baselines.linear import LinearScorer, fit_weights

    return shared.ranker(LinearScorer(shared.features, fit_weights(kind, *shared.pairs)))


def _logistic(shared: _Shared) -> Ranker:
    return _linear(shared, "logistic")


def _linear_svm(shared: _Shared) -> Ranker:
    return _linear(shared, "linear_svm")


MAKERS: dict[str, Callable[[_Shared], Ranker | None]] = {
    "popularity": _popularity,
    "popularity_7d": _popularity_7d,
    "item_knn": _item_knn,
    "user_knn": _user_knn,
    "user_knn_pearson": _user_knn_pearson,
    "tfidf": _tfidf,
    "lm_zero_shot": _lm_zero_shot,
    "als": _als,
    "bpr": _bpr,
    "bilinear_mf": _bilinear_mf,
    "logistic": _logistic,
    "linear_svm": _linear_svm,
}
NAMES = (*MAKERS, *SEQUENCE_NAMES)
"""Every baseline's name."""
MATRIX_NAMES = tuple(name for name in MAKERS if name not in ("popularity", "tfidf", "lm_zero_shot"))
"""Baselines that need the training rows in memory."""

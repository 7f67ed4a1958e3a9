"""Linear classifiers of (history, item) pairs: did the user take this item next?

Shapes: B histories, N items, F features, P pairs, C values of an attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from recsys.engine.catalogue import ATTRIBUTES, NO_VALUE, Catalogue
from recsys.eval.baselines.histories import history_recency
from recsys.eval.baselines.scoring import Scorer, best, slices
from recsys.eval.baselines.sparse import Sparse, from_cells
from recsys.eval.baselines.training_matrix import TrainingMatrix
from recsys.index.item_index import popularity_order
from recsys.schema import History

FEATURES = ("popularity", "neighbours", "text", *ATTRIBUTES, "recency")
NUM_CANDIDATES = 200
"""Candidates from each source: popularity, neighbours and text."""
MAX_WINDOWS = 5_000
"""Training windows whose last events are learned from."""
NUM_NEGATIVES = 10
"""Negatives of a window, drawn from its candidates."""


class PairFeatures:
    """What is known of a history and an item, for all items at once.

    `popularity` is log(1 + training events); `neighbours` the item-kNN score as a share of the
    history's best; `text` the cosine to the history's text; `category` and `brand` the share of
    the history with the item's value, and `recency` the share of the item itself, both with newer
    events weighing more.
    """

    def __init__(self, catalogue: Catalogue, neighbours: Scorer, content: Scorer) -> None:
        self._popularity = np.log1p(catalogue.train_counts.numpy()).astype(np.float32)
        self._neighbours, self._content = neighbours, content
        self._codes = [catalogue.codes(name) for name in ATTRIBUTES]
        self._removed = catalogue.removed.numpy()
        self._order = popularity_order(catalogue.train_counts).numpy()

    def of(self, histories: Sequence[History]) -> np.ndarray:
        """(F, B, N) features in the order of `FEATURES`."""
        similar = self._neighbours.scores(histories)
        recency = history_recency(histories, len(self._order))
        found = [
            np.broadcast_to(self._popularity, similar.shape),
            similar / np.maximum(similar.max(axis=1, keepdims=True), 1e-12),
            self._content.scores(histories),
            *(_share_of_value(recency, codes) for codes in self._codes),
            recency.toarray(),
        ]
        return np.stack(found).astype(np.float32)

    def candidates(self, features: np.ndarray) -> np.ndarray:
        """(B, N) mask of the best items by popularity, by neighbours and by text."""
        mask = np.zeros(features.shape[1:], dtype=bool)
        for source in features[:3]:
            left = np.where(self._removed, -np.inf, source)
            for row, scores_N in enumerate(left):
                mask[row, best(scores_N, self._order, NUM_CANDIDATES)] = True
        return mask


def _share_of_value(recency: Sparse, codes: np.ndarray) -> np.ndarray:
    """(B, N) the weight of a history's items that have the same value as each item."""
    items = np.flatnonzero(codes != NO_VALUE)
    if not len(items):
        return np.zeros(recency.shape, dtype=np.float32)
    shape = (len(codes), codes.max() + 1)
    values = from_cells(np.ones(len(items), np.float32), items, codes[items], shape)
    shares_BC = (recency @ values).toarray()
    return np.where(codes == NO_VALUE, 0, shares_BC[:, codes])


class LinearScorer:
    """Scores each history's candidates by a weighted sum of features.

    Candidates are the 200 best by popularity, by item neighbours and by text, together; any other
    item comes after them, so a list longer than its candidates is filled up by popularity.
    """

    def __init__(self, features: PairFeatures, weights: np.ndarray) -> None:
        self._features, self._weights = features, weights

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) weighted sums, and for all but the candidates one number below those."""
        features = self._features.of(histories)
        sums = np.tensordot(self._weights, features, axes=1)
        below = sums.min(axis=1, keepdims=True) - 1
        return np.where(self._features.candidates(features), sums, below)


def training_pairs(
    matrix: TrainingMatrix, features: PairFeatures, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(P, F) features and (P,) labels of the last events of training windows, and of negatives.

    Negatives are drawn from the candidates, which are what will be ranked.
    """
    random = np.random.default_rng(seed)
    pairs, labels = [], []
    windows = matrix.windows_of(sampled_users(matrix, seed))
    for places in slices(range(len(windows)), len(FEATURES) * matrix.counts.shape[1]):
        histories = [windows[place].take(slice(-1)) for place in places]
        found = features.of(histories)
        for row, mask in enumerate(features.candidates(found)):
            target = windows[places[row]].item_indexes[-1]
            mask[target] = False
            others = np.flatnonzero(mask)
            drawn = random.choice(others, min(NUM_NEGATIVES, len(others)), replace=False)
            pairs.append(found[:, row, np.append(target, drawn)].T)
            labels.append(np.arange(1 + len(drawn)) == 0)
    return np.concatenate(pairs), np.concatenate(labels)


def sampled_users(matrix: TrainingMatrix, seed: int = 0) -> np.ndarray:
    """The users whose newest windows are learned from."""
    num_users = matrix.counts.shape[0]
    chosen = np.random.default_rng(seed).permutation(num_users)[:MAX_WINDOWS]
    return np.sort(chosen)


def without_targets(matrix: TrainingMatrix, seed: int = 0) -> Sparse:
    """The counts without the events that `training_pairs` learns to predict.

    Neighbours that had seen a pair would tell that it is there.
    """
    users = sampled_users(matrix, seed)
    items = np.array([window.item_indexes[-1] for window in matrix.windows_of(users)])
    ones = np.ones(len(users), np.float32)
    left = matrix.counts - from_cells(ones, users, items, matrix.counts.shape)
    left.eliminate_zeros()
    return left


def fit_weights(
    kind: Literal["logistic", "linear_svm"], pairs: np.ndarray, labels: np.ndarray, seed: int = 0
) -> np.ndarray:
    """(F,) weights of the features as they are; their order needs no intercept."""
    model = LogisticRegression() if kind == "logistic" else LinearSVC(random_state=seed)
    scaler = StandardScaler()
    make_pipeline(scaler, model).fit(pairs, labels)
    return (model.coef_[0] / scaler.scale_).astype(np.float32)

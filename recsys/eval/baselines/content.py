"""Items like those of the history by their text, without any training on events.

Shapes: B histories, N items, V terms, E width of a language model's vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from recsys.eval.baselines.histories import HALF_LIFE, history_recency
from recsys.eval.baselines.sparse import Sparse
from recsys.models.backbone import fit_whitening
from recsys.schema import History

MAX_TERMS = 1 << 18
"""Terms kept, the most frequent ones."""


class ContentProfile:
    """An item's score is the cosine of its vector and the recency-weighted mean of the history's.

    `vectors` (N, V) are sparse or dense rows of length 1, or 0 where nothing is known.
    """

    def __init__(self, vectors: Sparse | np.ndarray, half_life: float = HALF_LIFE) -> None:
        self._vectors = vectors
        self._half_life = half_life

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) cosines."""
        rows = history_recency(histories, self._vectors.shape[0], self._half_life)
        found = normalize(rows @ self._vectors) @ self._vectors.T
        return found.toarray() if issparse(found) else found


def tfidf_vectors(texts: Sequence[str]) -> Sparse:
    """(N, V) TF-IDF rows of length 1 over 2 to 4 characters inside words.

    Characters need no tokeniser, so languages that write without spaces work as well.

    Raises:
        ValueError: no item has text.
    """
    if not any(text.strip() for text in texts):
        raise ValueError("no item has text: take tfidf and the baselines on it out")
    terms = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 4),
        sublinear_tf=True,
        max_features=MAX_TERMS,
    )
    return terms.fit_transform(texts).astype(np.float32)


def zero_shot_vectors(text_NE: torch.Tensor, whiten: bool = True) -> np.ndarray:
    """(N, E) vectors of a frozen language model at length 1, whitened over the catalogue or not."""
    vectors_NE = text_NE.float()
    if whiten:
        mean_E, matrix_EE = fit_whitening(vectors_NE)
        vectors_NE = (vectors_NE - mean_E) @ matrix_EE
    return torch.nn.functional.normalize(vectors_NE, dim=1).numpy()

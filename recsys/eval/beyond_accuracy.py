"""What a ranking is like beside being right: how varied, how new, how even over the catalogue.

Shapes: R rows, K ranks, N items, D embedding size. -1 fills a ranking that is shorter than its row.
A row that ranks nothing has no such values; they are NaN and take no part in a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from recsys.metrics import NO_ITEM, exposure, hits_of

VectorsOf = Callable[[np.ndarray], np.ndarray]
"""The vectors (..., D) of an array of item indexes."""
CHUNK_ROWS = 4096
"""Rows whose vectors are in memory at once: at k = 10 and D = 384, 63 MB."""


def gini_of_exposure(ranked: np.ndarray, num_items: int, k: int) -> float:
    """How unevenly the top `k` of all rows fall on the catalogue: 0 is even, towards 1 one item.

    With n items and exposures x(1) <= ... <= x(n): sum((2 i - n - 1) x(i)) / (n sum(x)), the Gini
    coefficient, which Fleder & Hosanagar, "Blockbuster culture's next rise or fall", Management
    Science 55(5), 2009, take for the diversity of sales.
    """
    shown = np.sort(exposure(ranked, num_items, k)).astype(np.float64)
    if not shown.sum():
        return float("nan")
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(weights @ shown / (num_items * shown.sum()))


def novelty(ranked: np.ndarray, train_counts: np.ndarray, k: int) -> np.ndarray:
    """(R,) mean self-information of the top `k` in bits: -log2 of an item's share of train events.

    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS
    107(10), 2010. An item without a train event counts as if it had one.
    """
    total = max(1, train_counts.sum())
    information = -np.log2(np.maximum(train_counts, 1) / total)
    return _row_means(ranked[:, :k], information)


def diversity(ranked: np.ndarray, vectors_of: VectorsOf, k: int) -> np.ndarray:
    """(R,) intra-list diversity: mean 1 - cosine over the pairs of the top `k`; NaN below 2 items.

    Smyth & McClave, "Similarity vs. diversity", ICCBR 2001. Of unit vectors v the cosines of all
    ordered pairs add up to |sum(v)|^2 - sum(|v|^2), so no pair is formed.
    """
    chunks = range(0, len(ranked), CHUNK_ROWS)
    found = [_diversity(ranked[at : at + CHUNK_ROWS, :k], vectors_of) for at in chunks]
    return np.concatenate([np.empty(0), *found])


def _diversity(top: np.ndarray, vectors_of: VectorsOf) -> np.ndarray:
    shown = top != NO_ITEM
    vectors = vectors_of(np.where(shown, top, 0)).astype(np.float64)
    norms = np.linalg.norm(vectors, axis=2, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    units[~shown] = 0
    ordered_pairs = shown.sum(axis=1) * (shown.sum(axis=1) - 1.0)
    cosines = (units.sum(axis=1) ** 2).sum(axis=1) - (units**2).sum(axis=(1, 2))
    unknown = np.full(len(top), np.nan)
    return 1 - np.divide(cosines, ordered_pairs, out=unknown, where=ordered_pairs > 0)


def serendipity(
    ranked: np.ndarray, popular: np.ndarray, targets: Sequence[np.ndarray], k: int
) -> np.ndarray:
    """(R,) share of the top `k` that is right and not in the popularity ranking's own top `k`.

    Useful and unexpected items over the length of the list, as in Ge, Delgado-Battenfeld &
    Jannach, "Beyond accuracy", RecSys 2010; `popular` (R, K) is what they call the primitive model.
    """
    hits = hits_of(ranked[:, :k], targets)[0]
    expected = (ranked[:, :k, None] == popular[:, None, :k]).any(axis=2)
    return (hits & ~expected).sum(axis=1) / k


def popularity_percentiles(train_counts: np.ndarray) -> np.ndarray:
    """(N,) share of the catalogue with fewer train events than an item; of its equals half."""
    ordered = np.sort(train_counts)
    below = np.searchsorted(ordered, train_counts, side="left")
    not_above = np.searchsorted(ordered, train_counts, side="right")
    return (below + not_above) / (2 * len(train_counts))


def popularity(ranked: np.ndarray, train_counts: np.ndarray, k: int) -> np.ndarray:
    """(R,) mean popularity percentile of the top `k`."""
    return _row_means(ranked[:, :k], popularity_percentiles(train_counts))


def popularity_lift(
    ranked: np.ndarray, histories: Sequence[np.ndarray], train_counts: np.ndarray, k: int
) -> np.ndarray:
    """(R,) `popularity` less that of the row's history; NaN where there is no history.

    The popularity lift of Abdollahpouri et al., "The connection between popularity bias,
    calibration, and fairness in recommendation", RecSys 2020, as a difference of percentiles, since
    a mean of counts is that of a few bestsellers. Above 0, users are shown more popular items than
    they choose.
    """
    lengths = np.array([len(items) for items in histories], dtype=np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    items = np.concatenate([np.empty(0, dtype=np.int64), *histories])
    values = popularity_percentiles(train_counts)[items]
    sums = np.bincount(rows, weights=values, minlength=len(lengths))
    own = np.divide(sums, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)
    return popularity(ranked, train_counts, k) - own


def _row_means(items: np.ndarray, value_of_item: np.ndarray) -> np.ndarray:
    """Each row's mean of its items' values."""
    shown = items != NO_ITEM
    sums = np.where(shown, value_of_item[items], 0.0).sum(axis=1)
    counts = shown.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(items), np.nan), where=counts > 0)

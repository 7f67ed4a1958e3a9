"""Full-ranking metrics on arrays.

Every row is one held-out case: a ranking of catalogue items, and the items it should have found.
Relevance is binary. Nothing here samples negatives: a ranking is over the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NO_ITEM = -1
"""Fills a ranking that is shorter than its row; it hits nothing."""


def ranking_metrics(
    ranked: np.ndarray, targets: Sequence[np.ndarray], cutoffs: Sequence[int]
) -> dict[str, np.ndarray]:
    """Recall, precision, MAP, NDCG, MRR and hit rate of each row at each cutoff.

    With hit(i) = 1 where the item at rank i (from 1) is a target and T the number of targets:

    - `recall@k` = sum(hit(i) for i <= k) / T, and `precision@k` = sum(hit(i) for i <= k) / k:
      Manning, Raghavan & Schuetze, "Introduction to Information Retrieval", 2008, chapter 8.4.
    - `map@k` = sum(hit(i) * precision@i for i <= k) / T, the average precision of the row, whose
      mean over rows is MAP: the same chapter. Divided by T, not by min(T, k), as in trec_eval.
    - `ndcg@k` = sum(hit(i) / log2(i + 1) for i <= k) / sum(1 / log2(i + 1) for i <= min(k, T)):
      Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4),
      2002, with binary gain and the discount log2(i + 1).
    - `mrr@k` = 1 / i of the first hit with i <= k, else 0: Voorhees, "The TREC-8 Question
      Answering Track Report", 1999.
    - `hit_rate@k` = 1 where any hit has i <= k, else 0: Deshpande & Karypis, "Item-based top-N
      recommendation algorithms", ACM TOIS 22(1), 2004.

    Args:
        ranked: (R, K) item indexes, best first, no item twice in a row; -1 fills a short row.
        targets: for each row its distinct relevant item indexes, at least one.
        cutoffs: every k to report; where K < k the ranking just ends.

    Returns:
        One float64 array (R,) for each name and cutoff, such as `recall@10`.

    Raises:
        ValueError: a shape is wrong, K is 0, a cutoff is below 1, a row has no target, a target
            is negative, or an item occurs twice in a row's ranking or targets.
    """
    _check_ranked(ranked)
    _check_cutoffs(cutoffs)
    hits, counts = hits_of(ranked, targets)
    precisions = hits.cumsum(axis=1) / np.arange(1, ranked.shape[1] + 1)
    discounts = 1.0 / np.log2(np.arange(2, ranked.shape[1] + 2))
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, max(cutoffs) + 2)))
    first = np.where(hits.any(axis=1), hits.argmax(axis=1), np.inf)
    metrics: dict[str, np.ndarray] = {}
    for k in cutoffs:
        top = hits[:, :k]
        metrics[f"recall@{k}"] = top.sum(axis=1) / counts
        metrics[f"precision@{k}"] = top.sum(axis=1) / k
        metrics[f"map@{k}"] = (top * precisions[:, :k]).sum(axis=1) / counts
        metrics[f"ndcg@{k}"] = top @ discounts[:k] / ideal[np.minimum(counts, k) - 1]
        metrics[f"mrr@{k}"] = np.where(first < k, 1.0 / (first + 1.0), 0.0)
        metrics[f"hit_rate@{k}"] = (first < k).astype(np.float64)
    return metrics


def catalogue_coverage(ranked: np.ndarray, num_items: int, k: int) -> float:
    """Share of the catalogue that occurs in the top `k` of any row.

    |union of the rows' top k| / `num_items`: "catalog coverage" of Ge, Delgado-Battenfeld &
    Jannach, "Beyond accuracy", RecSys 2010.

    Raises:
        ValueError: a shape is wrong, `num_items` or `k` is below 1, or an item index is not
            below `num_items`.
    """
    shown = np.flatnonzero(exposure(ranked, num_items, k))
    return len(shown) / num_items


def exposure(ranked: np.ndarray, num_items: int, k: int) -> np.ndarray:
    """(N,) in how many rows' top `k` each item is.

    Raises:
        ValueError: a shape is wrong, `num_items` or `k` is below 1, or an item index is not
            below `num_items`.
    """
    _check_ranked(ranked)
    _check_cutoffs([k])
    if num_items < 1:
        raise ValueError(f"num_items is {num_items}: a catalogue has at least one item")
    top = ranked[:, :k]
    if top.max(initial=NO_ITEM) >= num_items:
        raise ValueError(f"item_index {top.max()} is outside the catalogue of {num_items} items")
    return np.bincount(top[top != NO_ITEM], minlength=num_items)


def hits_of(ranked: np.ndarray, targets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where `ranked` holds a target of its own row (R, K), and each row's number of targets."""
    rows, items, counts = _flat_targets(targets, len(ranked))
    # A key names one (row, item) pair, so one isin compares every row with its own targets only.
    stride = int(max(ranked.max(initial=0), items.max(initial=0))) + 1
    wanted = rows * stride + items
    keys = np.arange(len(ranked))[:, None] * stride + ranked
    _check_distinct(wanted, stride, "targets")
    hits = np.isin(keys, wanted) & (ranked >= 0)
    _check_distinct(keys[ranked >= 0], stride, "ranked")
    return hits, counts


def _flat_targets(
    targets: Sequence[np.ndarray], num_rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, item) of every target, and each row's number of targets."""
    if len(targets) != num_rows:
        raise ValueError(f"ranked has {num_rows} rows but targets has {len(targets)}")
    counts = np.fromiter((np.size(row) for row in targets), dtype=np.int64, count=num_rows)
    if not counts.all():
        raise ValueError(f"targets[{int(counts.argmin())}] is empty: leave such rows out")
    items = np.concatenate([np.empty(0, dtype=np.int64), *(np.ravel(row) for row in targets)])
    if not np.issubdtype(items.dtype, np.integer):
        raise ValueError(f"targets must hold integer item indexes, not {items.dtype}")
    if items.min(initial=0) < 0:
        raise ValueError(f"targets hold the negative item_index {int(items.min())}")
    return np.repeat(np.arange(num_rows), counts), items, counts


def _check_distinct(keys: np.ndarray, stride: int, name: str) -> None:
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if repeated.size:
        row, item = divmod(int(repeated[0]), stride)
        raise ValueError(f"{name}[{row}] holds item_index {item} more than once")


def _check_ranked(ranked: np.ndarray) -> None:
    if ranked.ndim != 2:
        raise ValueError(f"ranked must be (rows, ranks), not of shape {ranked.shape}")
    if ranked.shape[1] == 0:
        raise ValueError("ranked has no ranks (K is 0): ask for at least one item a row")
    if not np.issubdtype(ranked.dtype, np.integer):
        raise ValueError(f"ranked must hold integer item indexes, not {ranked.dtype}")
    if ranked.min(initial=0) < NO_ITEM:
        raise ValueError(f"ranked holds {int(ranked.min())}: only {NO_ITEM} may fill a short row")


def _check_cutoffs(cutoffs: Sequence[int]) -> None:
    if len(cutoffs) == 0 or min(cutoffs) < 1:
        raise ValueError(f"cutoffs must be one or more numbers >= 1, not {list(cutoffs)}")

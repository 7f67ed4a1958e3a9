"""Let rankers rank every held-out row, and measure their lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recsys.config import EvaluationConfig
from recsys.engine.recommender import Ranked
from recsys.eval import beyond_accuracy as beyond
from recsys.eval.report_models import TRAINED
from recsys.eval.row_scores import ROW_CUTOFF, RowScores, score_segments
from recsys.eval.segments import ALL, HeldOut, segments
from recsys.metrics import NO_ITEM, catalogue_coverage
from recsys.schema import History

POPULARITY = "popularity"
"""The ranker that says what would surprise nobody."""


class Ranker(Protocol):
    """Whatever ranks items for histories."""

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The best items for each history."""
        ...


@dataclass(frozen=True)
class Scored:
    """By ranker its mean metrics by segment, the metrics of every row, and `model`'s lists."""

    means: dict[str, dict[str, dict[str, float]]]
    rows: RowScores
    trained: np.ndarray


def score_rankers(
    rankers: dict[str, Ranker],
    held_out: HeldOut,
    config: EvaluationConfig,
    vectors_of: beyond.VectorsOf,
) -> Scored:
    """Let every ranker rank every row; the lists of one are in memory at a time.

    `rankers` must have `model` and `popularity`, which says what would surprise nobody;
    `vectors_of` says how alike items are.
    """
    found, cutoffs = list(segments(held_out)), sorted({*config.cutoffs, ROW_CUTOFF})
    popular = rank_all(rankers[POPULARITY], held_out.histories, ROW_CUTOFF, config.batch_size)
    means, rows = {}, RowScores({name: numbers for name, numbers, _ in found})
    trained = popular
    for name, ranker in rankers.items():
        ranked = rank_all(ranker, held_out.histories, cutoffs[-1], config.batch_size)
        means[name], rows.values[name] = score_segments(ranked, found, cutoffs)
        means[name][ALL] |= score_lists(ranked, popular, held_out, cutoffs, vectors_of)
        trained = ranked if name == TRAINED else trained
    return Scored(means, rows, trained)


def score_lists(
    ranked: np.ndarray,
    popular: np.ndarray,
    held_out: HeldOut,
    cutoffs: Sequence[int],
    vectors_of: beyond.VectorsOf,
) -> dict[str, float]:
    """What lists are like beside being right; a value that no row has is left out."""
    counts, k = held_out.train_counts, ROW_CUTOFF
    histories = [history.item_indexes for history in held_out.histories]
    of_rows = {
        "novelty": beyond.novelty(ranked, counts, k),
        "diversity": beyond.diversity(ranked, vectors_of, k),
        "serendipity": beyond.serendipity(ranked, popular, held_out.targets, k),
        "popularity": beyond.popularity(ranked, counts, k),
        "popularity_lift": beyond.popularity_lift(ranked, histories, counts, k),
    }
    found = {f"coverage@{c}": catalogue_coverage(ranked, len(counts), c) for c in cutoffs}
    found[f"gini@{k}"] = beyond.gini_of_exposure(ranked, len(counts), k)
    for name, values in of_rows.items():
        known = values[~np.isnan(values)]
        found[f"{name}@{k}"] = float(known.mean()) if len(known) else float("nan")
    return {name: value for name, value in found.items() if not np.isnan(value)}


def rank_all(
    ranker: Ranker, histories: Sequence[History], top_k: int, batch_size: int
) -> np.ndarray:
    """(R, top_k) ranked item indexes, filled up with `NO_ITEM`."""
    ranked = np.full((len(histories), top_k), NO_ITEM, dtype=np.int64)
    for start in range(0, len(histories), batch_size):
        some = histories[start : start + batch_size]
        found = ranker.rank(some, [top_k] * len(some), [[]] * len(some))
        for row, result in zip(ranked[start:], found, strict=False):
            row[: len(result.item_indexes)] = result.item_indexes
    return ranked

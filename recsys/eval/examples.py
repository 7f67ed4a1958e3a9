"""Rows to look at: some from everywhere, and the worst mistakes. Titles alone: no ids, no times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recsys.engine.catalogue import Catalogue
from recsys.eval.segments import HISTORY_BOUNDS, HeldOut
from recsys.metrics import NO_ITEM, hits_of

NUM_EXAMPLES, NUM_MISTAKES = 6, 5
NUM_TITLES = 5
"""Titles of a history, of its targets and of its ranking that are shown."""
CANDIDATES, DEPTH = 50, 10_000
"""Missed rows that are ranked once more, so deep, to find which targets are the furthest down."""
LONG_HISTORY = HISTORY_BOUNDS[-1][0]

RankDeep = Callable[[np.ndarray, int], np.ndarray]
"""Ranks some rows down to a depth: (rows, depth) -> (rows, depth) item indexes."""


def examples(ranked: np.ndarray, held_out: HeldOut, catalogue: Catalogue) -> list[dict]:
    """Rows from all over the dataset, good or bad."""
    step = max(1, len(ranked) // NUM_EXAMPLES)
    rows = range(0, len(ranked), step)[:NUM_EXAMPLES]
    return [_shown(row, ranked[row], held_out, catalogue) for row in rows]


def worst_mistakes(
    ranked: np.ndarray, held_out: HeldOut, catalogue: Catalogue, rank_deep: RankDeep
) -> list[dict]:
    """Users whom the model should know, since their history is long, and whose target it ranked
    worst; where there are several targets the best of them counts.

    `rank` is the target's place, None where it is below `depth`.
    """
    rows = _candidates(ranked, held_out)
    if not len(rows):
        return []
    depth = min(DEPTH, len(catalogue))
    deep = rank_deep(rows, depth)
    hits, _ = hits_of(deep, [held_out.targets[row] for row in rows])
    places = np.where(hits.any(axis=1), hits.argmax(axis=1), depth)
    worst = np.argsort(-places, kind="stable")[:NUM_MISTAKES]
    return [
        _shown(int(rows[at]), deep[at], held_out, catalogue)
        | {
            "rank": int(places[at]) + 1 if places[at] < depth else None,
            "depth": depth,
            "events": len(held_out.histories[rows[at]]),
        }
        for at in worst
    ]


def _candidates(ranked: np.ndarray, held_out: HeldOut) -> np.ndarray:
    """Missed rows with a long history, the longest first."""
    lengths = held_out.lengths
    missed = ~hits_of(ranked, held_out.targets)[0].any(axis=1)
    rows = np.flatnonzero(missed & (lengths >= LONG_HISTORY))
    return rows[np.argsort(-lengths[rows], kind="stable")][:CANDIDATES]


def _shown(
    row: int, ranking: np.ndarray, held_out: HeldOut, catalogue: Catalogue
) -> dict[str, Any]:
    def titles(items: Sequence[int] | np.ndarray) -> list[str]:
        return [catalogue.name(int(item)) for item in items if item != NO_ITEM]

    return {
        "history": titles(held_out.histories[row].last(NUM_TITLES).item_indexes),
        "target": titles(held_out.targets[row][:NUM_TITLES]),
        "recommended": titles(ranking[:NUM_TITLES]),
    }

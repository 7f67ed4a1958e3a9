"""Answers that are not ten times the same: maximal marginal relevance, and a limit a category.

Shapes: P items of a pool, best first, D embedding size.
"""

from __future__ import annotations

import numpy as np

from recsys.engine.catalogue import NO_VALUE

MIN_POOL, POOL_ITEMS = 100, 5
"""A pool holds so many items, and so many for each that is wanted: deep enough to differ, and what
comes later suits the user less than what any answer would miss."""


def pool_size(top_k: int) -> int:
    """How many items to choose `top_k` from."""
    return max(MIN_POOL, POOL_ITEMS * top_k)


def choose(
    scores_P: np.ndarray,
    vectors_PD: np.ndarray,
    categories_P: np.ndarray,
    top_k: int,
    diversity: float,
    max_per_category: int | None,
) -> list[int]:
    """Places in the pool of at most `top_k` items, in the order in which they are chosen.

    Maximal marginal relevance (Carbonell & Goldstein 1998, doi 10.1145/290941.291025): each time
    the item with the largest (1 - diversity) * relevance - diversity * (largest cosine with a
    chosen item), the better one of equal ones. Relevance is the score brought to 0 .. 1 over the
    pool, since cosines with bonuses and shares of events have other scales than cosines.

    Args:
        scores_P: the items' scores, falling.
        vectors_PD: their vectors, of any length; read only where there is a `diversity`.
        categories_P: equal numbers for equal categories. Items with `NO_VALUE` have none, and no
            limit.
        top_k: how many.
        diversity: 0 is the order of the scores, 1 is difference alone.
        max_per_category: the limit; None has none.
    """
    relevance_P = _from_0_to_1(scores_P)
    units_PD = _units(vectors_PD) if diversity else vectors_PD
    likeness_P = np.zeros(len(scores_P))
    free_P = np.ones(len(scores_P), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < top_k and free_P.any():
        values_P = (1 - diversity) * relevance_P - diversity * likeness_P
        place = int(np.where(free_P, values_P, -np.inf).argmax())
        if diversity:
            to_last_P = units_PD @ units_PD[place]
            likeness_P = np.maximum(likeness_P, to_last_P) if chosen else to_last_P
        chosen.append(place)
        free_P[place] = False
        if max_per_category is not None and categories_P[place] != NO_VALUE:
            alike_P = categories_P == categories_P[place]
            if alike_P[chosen].sum() >= max_per_category:
                free_P &= ~alike_P
    return chosen


def _from_0_to_1(scores_P: np.ndarray) -> np.ndarray:
    if not len(scores_P):
        return scores_P
    scores_P = scores_P.astype(np.float64)
    spread = scores_P.max() - scores_P.min()
    return (scores_P - scores_P.min()) / (spread if spread else 1)


def _units(vectors_PD: np.ndarray) -> np.ndarray:
    lengths_P = np.linalg.norm(vectors_PD, axis=1)
    return vectors_PD / np.where(lengths_P, lengths_P, 1)[:, None]

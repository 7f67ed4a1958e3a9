"""Sparse training windows altered at random: crop, mask, reorder, substitute.

After CL4SRec (Xie et al. 2022, arXiv 2010.14395) and CoSeRec (Liu et al. 2021, arXiv 2108.06479).
There the altered sequences are views for a contrastive loss; here they stand in for the windows
themselves. How much is altered is drawn uniformly from all that leaves the newest event as it is
and at least two events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys.config import AugmentConfig
from recsys.schema import History

STREAM = 0xA06
"""Keeps these draws apart from those that order the windows by the same seed."""


@dataclass(frozen=True, slots=True)
class Augmenter:
    """Alters the share of windows that `config` asks for.

    `neighbours` (N, K) are the items to substitute each item by.
    """

    config: AugmentConfig
    seed: int
    neighbours: np.ndarray | None = None

    def of(self, windows: Sequence[History], step: int, places: Sequence[int]) -> list[History]:
        """The windows of one step, each altered or as it was.

        Everything follows from the seed, the step and each window's place in the global batch, so
        it neither depends on the number of workers nor on where a run was resumed.
        """
        pairs = zip(windows, places, strict=True)
        return [self._one(window, step, place) for window, place in pairs]

    def _one(self, window: History, step: int, place: int) -> History:
        if len(window) > self.config.max_length:
            return window
        random = np.random.default_rng([STREAM, self.seed, step, place])
        chosen = np.searchsorted(np.cumsum(self.config.shares), random.random(), side="right")
        if chosen == len(self.config.shares):
            return window
        if chosen == len(IN_PLACE):
            assert self.neighbours is not None
            return substitute(window, random, self.neighbours)
        return IN_PLACE[chosen](window, random)


def crop(window: History, random: np.random.Generator) -> History:
    """The newest part of a window, at least two events."""
    if len(window) <= 2:
        return window
    return window.last(int(random.integers(2, len(window))))


def mask(window: History, random: np.random.Generator) -> History:
    """The window without some of its events, in the same order."""
    if len(window) <= 2:
        return window
    older = len(window) - 1
    kept = random.choice(older, size=random.integers(1, older), replace=False)
    return window.take(np.append(np.sort(kept), older))


def reorder(window: History, random: np.random.Generator) -> History:
    """The window with a span of its events shuffled; the times stay, so that they still ascend."""
    if len(window) <= 2:
        return window
    size = int(random.integers(2, len(window)))
    start = int(random.integers(len(window) - size))
    order = np.arange(len(window))
    order[start : start + size] = start + random.permutation(size)
    return replace(window.take(order), timestamps=window.timestamps)


def substitute(window: History, random: np.random.Generator, neighbours: np.ndarray) -> History:
    """The window with some of its items replaced by one of their `neighbours` (N, K)."""
    older = len(window) - 1
    places = random.choice(older, size=random.integers(1, older + 1), replace=False)
    items = window.item_indexes.copy()
    items[places] = neighbours[
        items[places], random.integers(neighbours.shape[1], size=len(places))
    ]
    values = window.values
    if values is not None:
        values = values.copy()
        values[places] = np.nan  # nobody valued the neighbours
    return replace(window, item_indexes=items, values=values)


IN_PLACE = (crop, mask, reorder)
"""What needs the window alone, in the order of `AugmentConfig.shares`."""

"""A map of the catalogue: item vectors in two dimensions, by category."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.eval.beyond_accuracy import VectorsOf
from recsys.eval.segments import OTHER, Labels
from recsys.plots import NUM_COLOURS

MAX_ITEMS = 2_000
SEED = 0


@dataclass(frozen=True)
class ItemMap:
    """`points` (P, 2), for each the position of its category in `names`, and the share of the
    vectors' variance that the two axes keep."""

    points: np.ndarray
    categories: np.ndarray
    names: list[str]
    kept_variance: float


def make_item_map(vectors_of: VectorsOf, items: np.ndarray, categories: Labels) -> ItemMap:
    """The first two principal components of unit item vectors, of at most `MAX_ITEMS` of `items`.

    Pearson, "On lines and planes of closest fit", Philosophical Magazine 2(11), 1901. The most
    frequent categories have names of their own, the rest is `other`.
    """
    if len(items) > MAX_ITEMS:
        items = np.sort(np.random.default_rng(SEED).choice(items, MAX_ITEMS, replace=False))
    vectors = vectors_of(items).astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    points, kept = _principal(vectors / np.where(norms > 0, norms, 1))
    positions, names = _most_frequent(categories.codes[items], categories.names)
    return ItemMap(points, positions, names, kept)


def _principal(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2))
    points[:, : len(sizes[:2])] = (left * sizes)[:, :2]
    # A component's sign is open; its furthest point is put on the positive side.
    furthest = points[np.abs(points).argmax(axis=0), [0, 1]]
    points *= np.where(furthest < 0, -1, 1)
    return points, float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-12))


def _most_frequent(codes: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    counts = np.bincount(codes, minlength=len(names))
    by_size = sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-counts[code], names[code]))
    chosen = by_size if len(by_size) <= NUM_COLOURS else by_size[: NUM_COLOURS - 1]
    position_of = np.full(len(names), len(chosen))
    position_of[chosen] = np.arange(len(chosen))
    shown = [names[code] for code in chosen]
    return position_of[codes], shown if len(chosen) == len(by_size) else [*shown, OTHER]

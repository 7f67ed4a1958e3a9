"""Which users and items a metric is about.

Item segments look at part of a row's targets: head are the most popular items that together take
half of the training events, cold have no training event, tail is what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

HISTORY_BOUNDS = ((0, 0), (1, 4), (5, 19), (20, None))
"""Events of history, both ends included."""

Segment = tuple[str, np.ndarray, list[np.ndarray]]
"""Name, the rows in it, and these rows' targets."""


def item_kinds(train_counts: np.ndarray) -> dict[str, np.ndarray]:
    """For each item segment an (N,) mask of its items."""
    order = np.argsort(-train_counts, kind="stable")
    taken_before = np.cumsum(train_counts[order]) - train_counts[order]
    head = np.zeros(len(train_counts), dtype=bool)
    head[order[taken_before < train_counts.sum() / 2]] = True
    cold = train_counts == 0
    return {"head": head & ~cold, "tail": ~head & ~cold, "cold": cold}


def segments(
    history_lengths: np.ndarray, targets: Sequence[np.ndarray], train_counts: np.ndarray
) -> Iterator[Segment]:
    """`all`, then by history length, then by the kind of the target; empty ones are left out."""
    yield "all", np.arange(len(targets)), list(targets)
    for low, high in HISTORY_BOUNDS:
        inside = (history_lengths >= low) & (high is None or history_lengths <= high)
        yield from _named(f"history:{_range(low, high)}", np.flatnonzero(inside), targets)
    for kind, mask in item_kinds(train_counts).items():
        of_kind = [t[mask[t]] for t in targets]
        rows = np.flatnonzero([len(t) > 0 for t in of_kind])
        yield from _named(f"items:{kind}", rows, of_kind)


def _named(name: str, rows: np.ndarray, targets: Sequence[np.ndarray]) -> Iterator[Segment]:
    if len(rows):
        yield name, rows, [targets[row] for row in rows]


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"

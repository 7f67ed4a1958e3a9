"""Which users and items a metric is about.

Item segments look at part of a row's targets: head are the most popular items that together take
half of the training events, cold have no training event, tail is what is left.

Columns of the users and of the items make segments of their values: the most frequent, and `other`
for the rest. A value with few rows joins `other`, so that a report tells of nobody alone.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.schema import History

HISTORY_BOUNDS = ((0, 0), (1, 4), (5, 19), (20, None))
"""Events of history, both ends included."""
ALL = "all"
"""The segment of every row."""
OTHER, UNKNOWN = "other", "unknown"
MAX_GROUPS = 10
"""Values of a column that have a segment of their own."""

Segment = tuple[str, np.ndarray, list[np.ndarray]]
"""Name, the rows in it, and these rows' targets."""


@dataclass(frozen=True)
class Labels:
    """A column of texts: entry i is `names[codes[i]]`."""

    names: list[str]
    codes: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> Self:
        """Values as text; null and "" are `UNKNOWN`."""
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        texts = pc.fill_null(whole.cast(pa.large_string()), UNKNOWN)
        encoded = pc.if_else(pc.equal(texts, ""), UNKNOWN, texts).dictionary_encode()
        return cls(encoded.dictionary.to_pylist(), encoded.indices.to_numpy())


@dataclass(frozen=True)
class HeldOut:
    """The rows to score, and what segments need to know of them.

    `user_labels` are columns over the rows (R,), `item_labels` over the items (N,).
    """

    histories: list[History]
    targets: list[np.ndarray]
    train_counts: np.ndarray
    user_labels: Mapping[str, Labels] = field(default_factory=dict)
    item_labels: Mapping[str, Labels] = field(default_factory=dict)
    min_group_size: int = 1

    @property
    def lengths(self) -> np.ndarray:
        """(R,) events of history."""
        return np.array([len(history) for history in self.histories])


def item_kinds(train_counts: np.ndarray) -> dict[str, np.ndarray]:
    """For each item segment an (N,) mask of its items."""
    order = np.argsort(-train_counts, kind="stable")
    taken_before = np.cumsum(train_counts[order]) - train_counts[order]
    head = np.zeros(len(train_counts), dtype=bool)
    head[order[taken_before < train_counts.sum() / 2]] = True
    cold = train_counts == 0
    return {"head": head & ~cold, "tail": ~head & ~cold, "cold": cold}


def segments(held_out: HeldOut) -> Iterator[Segment]:
    """`all`, then by history length, by the kind of the target, and by columns; none is empty."""
    targets, lengths = held_out.targets, held_out.lengths
    yield ALL, np.arange(len(targets)), list(targets)
    for low, high in HISTORY_BOUNDS:
        inside = (lengths >= low) & (high is None or lengths <= high)
        yield from _named(f"history:{_range(low, high)}", np.flatnonzero(inside), targets)
    for kind, mask in item_kinds(held_out.train_counts).items():
        yield from _of_items(f"items:{kind}", mask, targets)
    for column, labels in held_out.user_labels.items():
        rows_of = np.bincount(labels.codes, minlength=len(labels.names))
        for value, mask in _groups(labels, rows_of, held_out.min_group_size):
            yield from _named(group_name("user", column, value), np.flatnonzero(mask), targets)
    for column, labels in held_out.item_labels.items():
        rows_of = _rows_of_values(labels, targets)
        for value, mask in _groups(labels, rows_of, held_out.min_group_size):
            name = group_name("item", column, value)
            yield from _large(_of_items(name, mask, targets), held_out.min_group_size)


def group_name(kind: str, column: str, value: str) -> str:
    """The segment of one value of a column; `kind` is `user` or `item`."""
    return f"{kind}:{column}={value}"


def split_group_name(segment: str) -> tuple[str, str, str] | None:
    """Kind, column and value of a segment by column; None for any other segment."""
    kind, colon, rest = segment.partition(":")
    column, equals, value = rest.partition("=")
    return (kind, column, value) if colon and equals and kind in ("user", "item") else None


def _groups(labels: Labels, rows_of: np.ndarray, min_size: int) -> Iterator[tuple[str, np.ndarray]]:
    """The values with the most rows and a mask of each one's entries, `OTHER` last."""
    by_size = sorted(range(len(labels.names)), key=lambda c: (-rows_of[c], labels.names[c]))
    large = [c for c in by_size if rows_of[c] >= min_size and labels.names[c] != OTHER]
    chosen = large[:MAX_GROUPS]
    for code in chosen:
        yield labels.names[code], labels.codes == code
    rest = ~np.isin(labels.codes, chosen)
    if rows_of[[c for c in by_size if c not in chosen]].sum() >= max(1, min_size):
        yield OTHER, rest


def _rows_of_values(labels: Labels, targets: Sequence[np.ndarray]) -> np.ndarray:
    """In how many rows each value has a target."""
    rows = np.repeat(np.arange(len(targets)), [len(t) for t in targets])
    codes = labels.codes[np.concatenate([np.empty(0, np.int64), *targets])]
    pairs = np.unique(rows * len(labels.names) + codes)
    return np.bincount(pairs % len(labels.names), minlength=len(labels.names))


def _of_items(name: str, mask: np.ndarray, targets: Sequence[np.ndarray]) -> Iterator[Segment]:
    of_kind = [t[mask[t]] for t in targets]
    yield from _named(name, np.flatnonzero([len(t) > 0 for t in of_kind]), of_kind)


def _named(name: str, rows: np.ndarray, targets: Sequence[np.ndarray]) -> Iterator[Segment]:
    if len(rows):
        yield name, rows, [targets[row] for row in rows]


def _large(found: Iterator[Segment], min_size: int) -> Iterator[Segment]:
    """Rows may have targets of several rare values, so `OTHER` can be smaller than their sum."""
    return (segment for segment in found if len(segment[1]) >= min_size)


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"

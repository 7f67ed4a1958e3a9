"""What a dataset looks like, in counts: of its users and events, and of its items.

Events are profiled where whole users are, block by block, and the profiles are merged. What leaves
the stage is `published`: no count below k is in it, and none can be worked out from the totals.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from recsys import schema
from recsys.data.history import Sequences

UNKNOWN_DAY = "unknown"
"""The day of an event without a timestamp."""
NO_CATEGORY = "(none)"
OTHER = "(other)"
"""All categories that are not among the `TOP_CATEGORIES`."""
TOP_CATEGORIES = 20
TEXT_COLUMNS = schema.ITEM_TEXT_COLUMNS
PRICE = "price"
SEGMENTS = ("head", "mid", "tail", "cold")
HEAD_SHARE, MID_SHARE = (1, 2), (4, 5)
"""Head items take half of the train events, head and mid items 80 %; as fractions, so that the
cut is exact."""
RANKS_A_DECADE = 10

Counts = dict[str, int | None]
"""A breakdown of a total. None is a count that is not published: fewer than k, or hidden so that
such a one cannot be worked out."""


class Profile(BaseModel):
    """Users and events in counts; every breakdown sums to its total.

    `events_by_day` has UTC days as `2024-02-29`, and `unknown`; `users_by_length` has events a
    user in buckets between powers of two: `1`, `2-3`, `4-7`, ... A None total is below k.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_users: int | None = 0
    num_events: int | None = 0
    events_by_day: Counts = {}
    events_by_type: Counts = {}
    users_by_length: Counts = {}

    def published(self, k: int) -> Self:
        """The profile that may leave the stage: see `suppress`."""
        return type(self)(
            num_users=_public(self.num_users, k),
            num_events=_public(self.num_events, k),
            events_by_day=suppress(self.events_by_day, k),
            events_by_type=suppress(self.events_by_type, k),
            users_by_length=suppress(self.users_by_length, k),
        )


class PopularityPoint(BaseModel):
    """The item of one rank (1 is the most popular): its train events, and the share of all train
    events that go to it and the items before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rank: int
    events: int
    share: float


class ItemProfile(BaseModel):
    """The catalogue in counts; events are train events.

    `missing` is items without the attribute, by column. `popularity` has log-spaced ranks, up to
    the last item with an event. Segments are those of `item_segments`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_items: int
    num_events: int | None
    missing: dict[str, int]
    popularity: list[PopularityPoint]
    items_by_segment: dict[str, int]
    events_by_segment: Counts
    events_by_category: Counts

    def published(self, k: int) -> Self:
        """The profile that may leave the stage: see `suppress`.

        A point of the popularity curve goes where its item, or all items after it, have fewer
        than k events.
        """
        total = self.num_events or 0
        rest = {point.rank: total - round(point.share * total) for point in self.popularity}
        return self.model_copy(
            update={
                "num_events": _public(self.num_events, k),
                "popularity": [
                    p for p in self.popularity if p.events >= k and not 0 < rest[p.rank] < k
                ],
                "events_by_segment": suppress(self.events_by_segment, k),
                "events_by_category": suppress(self.events_by_category, k),
            }
        )


# Users and events


def profile_sequences(sequences: Sequences, event_names: Sequence[str]) -> Profile:
    """Counts of whole users' events, in O(events).

    A user who stands in several sequences (sessions) is one user.
    """
    lengths = _events_a_user(sequences)
    types = np.bincount(sequences.events, minlength=len(event_names))
    return Profile(
        num_users=len(lengths),
        num_events=sequences.num_events,
        events_by_day=_by_day(sequences.timestamps),
        events_by_type=dict(zip(event_names, types.tolist(), strict=True)),
        users_by_length=_by_length(lengths),
    )


def _events_a_user(sequences: Sequences) -> np.ndarray:
    ids = sequences.user_ids
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return np.add.reduceat(sequences.lengths, starts)


def _by_day(timestamps: np.ndarray) -> Counts:
    known = timestamps[timestamps >= 0] // schema.SECONDS_A_DAY
    first = int(known.min()) if len(known) else 0
    counts = np.bincount(known - first)
    days = np.flatnonzero(counts)
    names = np.datetime_as_string((days + first).astype("datetime64[D]")).tolist()
    by_day: Counts = dict(zip(names, counts[days].tolist(), strict=True))
    unknown = len(timestamps) - len(known)
    return by_day | {UNKNOWN_DAY: unknown} if unknown else by_day


def _by_length(lengths: np.ndarray) -> Counts:
    # frexp writes n as m * 2^e with m in [0.5, 1), so 2^(e - 1) <= n < 2^e; 0 has e = 0.
    counts = np.bincount(np.frexp(lengths)[1])
    found = np.flatnonzero(counts).tolist()
    return {bucket_name(exponent): int(counts[exponent]) for exponent in found}


def bucket_name(exponent: int) -> str:
    """The bucket of `users_by_length` that ends below 2^exponent."""
    if exponent < 2:
        return str(exponent)
    return f"{1 << (exponent - 1)}-{(1 << exponent) - 1}"


def bucket_start(bucket: str) -> int:
    """The fewest events of a bucket of `users_by_length`."""
    return int(bucket.partition("-")[0])


def merge_profiles(profiles: Sequence[Profile]) -> Profile:
    """The profile of all users of profiles that share none. The order does not matter."""
    lengths = _sum([profile.users_by_length for profile in profiles])
    return Profile(
        num_users=sum(profile.num_users or 0 for profile in profiles),
        num_events=sum(profile.num_events or 0 for profile in profiles),
        events_by_day=_sum([profile.events_by_day for profile in profiles]),
        events_by_type=_sum([profile.events_by_type for profile in profiles]),
        users_by_length={name: lengths[name] for name in sorted(lengths, key=bucket_start)},
    )


def _sum(parts: Sequence[Counts]) -> Counts:
    total: Counter[str] = Counter()
    for part in parts:
        for name, count in part.items():
            assert count is not None, "profiles are merged before they are published"
            total[name] += count
    return {name: total[name] for name in sorted(total)}


# Items


def profile_items(items: pa.Table, train_counts: np.ndarray) -> ItemProfile:
    """Counts of the catalogue; `train_counts` (N,) are each row's train events."""
    masks = item_segments(train_counts)
    return ItemProfile(
        num_items=len(items),
        num_events=int(train_counts.sum()),
        missing={name: _missing(items, name) for name in (*TEXT_COLUMNS, PRICE)},
        popularity=_popularity(train_counts),
        items_by_segment={name: int(mask.sum()) for name, mask in masks.items()},
        events_by_segment={name: int(train_counts[mask].sum()) for name, mask in masks.items()},
        events_by_category=_by_category(items, train_counts),
    )


def item_segments(train_counts: np.ndarray) -> dict[str, np.ndarray]:
    """An (N,) mask for each of `SEGMENTS`; every item is in one of them.

    Head: the most popular items that together take half of the train events; mid: the next, up
    to 80 %; tail: the rest; cold: no train event.
    """
    order = np.argsort(-train_counts, kind="stable")
    taken_before = np.zeros_like(train_counts)
    taken_before[order] = np.cumsum(train_counts[order]) - train_counts[order]
    warm = train_counts > 0
    head = warm & _below(taken_before, train_counts, HEAD_SHARE)
    mid = warm & ~head & _below(taken_before, train_counts, MID_SHARE)
    return {"head": head, "mid": mid, "tail": warm & ~head & ~mid, "cold": ~warm}


def _below(taken: np.ndarray, counts: np.ndarray, share: tuple[int, int]) -> np.ndarray:
    return taken * share[1] < counts.sum() * share[0]


def _missing(items: pa.Table, name: str) -> int:
    if name not in items.column_names:
        return len(items)
    if name == PRICE:
        return pc.sum(pc.is_null(items[name], nan_is_null=True)).as_py() or 0
    return pc.sum(pc.equal(_filled(items[name]), "")).as_py() or 0


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(column.cast(pa.large_string()), "")


def _popularity(train_counts: np.ndarray) -> list[PopularityPoint]:
    counts = np.sort(train_counts[train_counts > 0])[::-1]
    if not len(counts):
        return []
    decades = np.arange(np.log10(len(counts)) * RANKS_A_DECADE) / RANKS_A_DECADE
    ranks = np.unique(np.append(np.rint(10**decades).astype(np.int64), len(counts)))
    shares = np.cumsum(counts)[ranks - 1] / counts.sum()
    points = zip(ranks.tolist(), counts[ranks - 1].tolist(), shares.tolist(), strict=True)
    return [PopularityPoint(rank=r, events=n, share=share) for r, n, share in points]


def _by_category(items: pa.Table, train_counts: np.ndarray) -> Counts:
    """The most popular categories, most popular first, and all others as one."""
    if "category" not in items.column_names:
        return {NO_CATEGORY: int(train_counts.sum())}
    filled = _filled(items["category"])
    names = pc.if_else(pc.equal(filled, ""), NO_CATEGORY, filled)
    encoded = names.combine_chunks().dictionary_encode()
    totals = np.zeros(len(encoded.dictionary), dtype=np.int64)
    np.add.at(totals, encoded.indices.to_numpy(), train_counts)
    pairs = zip(encoded.dictionary.to_pylist(), totals.tolist(), strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    counts: Counts = dict(ordered[:TOP_CATEGORIES])
    if rest := ordered[TOP_CATEGORIES:]:
        counts[OTHER] = sum(count for _, count in rest) + (counts.get(OTHER) or 0)
    return counts


# What may be published


def suppress(counts: Mapping[str, int | None], k: int) -> Counts:
    """Hide every count from 1 to k - 1, and more where that is not enough.

    Where the hidden cells could be worked out from the total of the breakdown, which is published
    (one cell alone, a sum below k, or a sum that only cells of 1 or of k - 1 have), the smallest
    of the others are hidden too, all of one size together; zeros come last. So any two hidden
    cells may have changed places, also for a reader who knows this rule. Only a breakdown whose
    cells are all 1, or all k - 1, cannot be helped: its total tells them.

    Primary and complementary cell suppression: Hundepool et al., Statistical Disclosure Control
    (Wiley, 2012).
    """
    known = {name: count for name, count in counts.items() if count is not None}
    assert len(known) == len(counts), "counts are suppressed once"
    hidden = [count for count in known.values() if 0 < count < k]
    limit = {*hidden}
    for size in sorted({*known.values()} - limit, key=lambda size: (size == 0, size)):
        if not _worked_out(hidden, k):
            break
        limit.add(size)
        hidden += [count for count in known.values() if count == size]
    return {name: None if count in limit else count for name, count in known.items()}


def _worked_out(hidden: list[int], k: int) -> bool:
    """Whether the sum of the hidden cells tells one of them."""
    if not hidden:
        return False
    total, cells = sum(hidden), len(hidden)
    pinned = max(hidden) < k and min(hidden) > 0 and total in (cells, cells * (k - 1))
    return cells == 1 or total < k or pinned


def _public(total: int | None, k: int) -> int | None:
    return suppress({"total": total}, k)["total"]

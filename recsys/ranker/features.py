"""What is known of the candidates of one search, as numbers that trees can divide.

Shapes: C candidates, F features, N items.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.index.lexical import split_words

FEATURES = (
    "words",
    "words_of_best",
    "meaning",
    "meaning_below_best",
    "fused",
    "words_place",
    "meaning_place",
    "title_share",
    "title_filled",
    "query_words",
    "popularity",
    "popularity_of_best",
    "price",
    "price_of_median",
    "age_days",
    "category_share",
    "brand_share",
    "sequence",
    "sequence_below_best",
    "cross",
    "cross_below_best",
)
"""Names of the columns of `make_features`, in order."""
NO_CODE = -1
SECONDS_A_DAY = 86_400
_TITLES_KEPT = 200_000


@dataclass(frozen=True)
class ItemFacts:
    """What is known of all N items without a query; each (N,), not a number where unknown.

    `added` are Unix seconds. `categories` and `brands` are numbers, equal for equal values, and -1
    where unknown.
    """

    titles: Sequence[str | None]
    train_counts: np.ndarray
    prices: np.ndarray
    added: np.ndarray
    categories: np.ndarray
    brands: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """What one search found: (C,) item indexes and, for each, not a number where unknown:

    `words` (BM25), `meaning` (cosine), `fused` (above 0), its places by words and by meaning from
    1, what its user's history makes of it (`sequence`), and the language model (`cross`).
    """

    query: str
    items: np.ndarray
    words: np.ndarray
    meaning: np.ndarray
    fused: np.ndarray
    words_place: np.ndarray
    meaning_place: np.ndarray
    sequence: np.ndarray
    cross: np.ndarray


def make_features(found: Candidates, facts: ItemFacts, now: float = np.nan) -> np.ndarray:
    """(C, F) float32, `FEATURES` by column, not a number where unknown.

    Trees see an item beside its rivals: `_of_best` divides by the largest of the candidates,
    `_below_best` subtracts it. `category_share` and `brand_share` are the part of all fused scores
    that the items of the same category or brand have. `title_share` is the part of the query's
    words that the title has, `title_filled` the part of the title that they are. `now` is in Unix
    seconds, and without it ages are unknown.
    """
    items = found.items
    counts = np.log1p(facts.train_counts[items].astype(np.float64))
    price = np.log1p(facts.prices[items].clip(0))
    title_share, title_filled, query_words = _overlap(found.query, facts.titles, items)
    columns = {
        "words": found.words,
        "words_of_best": _over(found.words, _largest(found.words)),
        "meaning": found.meaning,
        "meaning_below_best": found.meaning - _largest(found.meaning),
        "fused": _over(found.fused, _largest(found.fused)),
        "words_place": found.words_place,
        "meaning_place": found.meaning_place,
        "title_share": title_share,
        "title_filled": title_filled,
        "query_words": query_words,
        "popularity": counts,
        "popularity_of_best": _over(counts, _largest(counts)),
        "price": price,
        "price_of_median": price - _median(price),
        "age_days": (now - facts.added[items]) / SECONDS_A_DAY,
        "category_share": _share_of(facts.categories[items], found.fused),
        "brand_share": _share_of(facts.brands[items], found.fused),
        "sequence": found.sequence,
        "sequence_below_best": found.sequence - _largest(found.sequence),
        "cross": found.cross,
        "cross_below_best": found.cross - _largest(found.cross),
    }
    assert tuple(columns) == FEATURES
    return np.stack([np.asarray(values) for values in columns.values()], axis=1).astype(np.float32)


def _largest(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else np.nan


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def _over(values: np.ndarray, largest: float) -> np.ndarray:
    """Unknown where nothing is above 0."""
    return values / (largest if largest > 0 else np.nan)


def _share_of(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(C,) the part of the weights that candidates of the same code have."""
    known = codes != NO_CODE
    _, same = np.unique(codes, return_inverse=True)
    total = weights.sum()
    shares = np.bincount(same, weights)[same] / (total if total > 0 else np.nan)
    return np.where(known, shares, np.nan)


def _overlap(
    query: str, titles: Sequence[str | None], items: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(C,) `title_share`, `title_filled` and `query_words`."""
    wanted = frozenset(split_words(query))
    size = len(wanted) or np.nan
    words = [_title_words(titles[item] or "") for item in items.tolist()]
    shared = np.array([len(wanted & title) for title in words], dtype=np.float64)
    lengths = np.array([len(title) or np.nan for title in words])
    return shared / size, shared / lengths, np.full(len(items), size)


@functools.lru_cache(_TITLES_KEPT)
def _title_words(title: str) -> frozenset[str]:
    """Kept, since cutting 300 titles takes 19 ms, which is more than all the rest."""
    return frozenset(split_words(title))

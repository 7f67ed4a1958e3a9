"""Features by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.ranker.features import FEATURES, Candidates, ItemFacts, make_features

NAN = np.nan
FACTS = ItemFacts(
    titles=["Red hat", None, "Blue nail", "红色帽子"],
    train_counts=np.array([9, 0, 99, 1]),
    prices=np.array([9.0, NAN, 99.0, 19.0]),
    added=np.array([0.0, NAN, 86_400.0, 0.0]),
    categories=np.array([0, -1, 1, 0]),
    brands=np.array([-1, -1, -1, -1]),
)


def found(items: list[int], query: str = "red hats") -> Candidates:
    """Candidates whose scores are 1, 2, .. times 4, and fused scores that fall."""
    numbers = np.arange(1.0, len(items) + 1)
    unknown = np.full(len(items), NAN)
    fused = 1 / numbers
    return Candidates(
        query, np.array(items, dtype=np.int64), 4 * numbers, unknown, fused, *[unknown] * 4
    )


def column(features: np.ndarray, name: str) -> list[float]:
    return features[:, FEATURES.index(name)].tolist()


def test_every_feature_of_a_small_search():
    features = make_features(found([2, 0, 1]), FACTS, now=2 * 86_400)
    assert (features.shape, features.dtype) == ((3, len(FEATURES)), np.float32)
    wanted = {
        "words": [4, 8, 12],
        "words_of_best": [1 / 3, 2 / 3, 1],
        "meaning": [NAN] * 3,
        "fused": [1, 1 / 2, 1 / 3],
        "title_share": [0, 1, 0],
        "title_filled": [0, 1, NAN],
        "query_words": [2] * 3,
        "popularity": [np.log(100), np.log(10), 0],
        "popularity_of_best": [1, 0.5, 0],
        "price": [np.log(100), np.log(10), NAN],
        "price_of_median": [np.log(10) / 2, -np.log(10) / 2, NAN],
        "age_days": [1, 2, NAN],
        "category_share": [6 / 11, 3 / 11, NAN],
        "brand_share": [NAN] * 3,
        "sequence": [NAN] * 3,
    }
    for name, values in wanted.items():
        assert column(features, name) == pytest.approx(values, nan_ok=True, rel=1e-5), name


def test_chinese_titles_are_read_as_the_search_reads_them():
    features = make_features(found([3, 0], "帽子"), FACTS)
    assert column(features, "title_share") == [1, 0]
    assert column(features, "age_days") == pytest.approx([NAN, NAN], nan_ok=True)


def test_what_nobody_knows_is_unknown_and_no_fault():
    nothing = found([])
    assert make_features(nothing, FACTS).shape == (0, len(FEATURES))
    silent = make_features(found([1], ""), FACTS)
    assert np.isnan(column(silent, "title_share")).all()
    assert np.isnan(column(silent, "popularity_of_best")).all()

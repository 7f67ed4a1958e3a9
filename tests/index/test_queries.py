"""Judged queries: which rows count, which queries are one, and that splits do not overlap."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.index.lexical import split_words
from recsys.index.queries import JudgedQuery, queries_digest, read_queries

ITEMS = pa.table({"item_id": ["a", "b", "gone"], "removed": [False, False, True]})


def write(folder: Path, **columns: list) -> str:
    path = folder / "queries.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def every(by_split: dict[str, list[JudgedQuery]]) -> dict[str, dict[int, float]]:
    """Items and relevance by text."""
    return {
        query.text: dict(zip(query.items.tolist(), query.relevance.tolist(), strict=True))
        for queries in by_split.values()
        for query in queries
    }


def test_rows_are_used_or_counted_by_what_is_wrong_with_them(tmp_path):
    texts = ["hat", "hat", "hat", "hat", "hat", "  ", None, "h" * 10_001, "saw"]
    ids = ["a", "nowhere", "gone", "b", "b", "a", "a", "a", "b"]
    relevance = [1.0, 1.0, 1.0, 0.0, float("nan"), 1.0, 1.0, 1.0, 0.5]
    uri = write(tmp_path, query=texts, item_id=ids, relevance=relevance)
    read = read_queries(uri, ITEMS)
    assert every(read.by_split) == {"hat": {0: 1.0}, "saw": {1: 0.5}}
    assert read.rows == {
        "empty_query": 2,
        "long_query": 1,
        "no_relevance": 2,
        "removed_item": 1,
        "unknown_item": 1,
        "used": 2,
    }
    assert sum(read.rows.values()) == len(texts)


def test_queries_of_the_same_words_are_one_and_keep_the_best_relevance(tmp_path):
    texts = ["Red hats", "hat RED", "red  hat!", "red hat"]
    uri = write(tmp_path, query=texts, item_id=["a", "b", "a", "a"], relevance=[0.2, 1.0, 0.9, 0.1])
    assert every(read_queries(uri, ITEMS).by_split) == {"Red hats": {0: 0.9, 1: 1.0}}


def test_no_words_are_in_two_splits_and_shares_are_as_wanted(tmp_path):
    texts = [f"{word} {number}" for number in range(500) for word in ("lamp", "lamps", "LAMP")]
    uri = write(tmp_path, query=texts, item_id=["a"] * len(texts))
    split = read_queries(uri, ITEMS).by_split
    words = {n: {frozenset(split_words(q.text)) for q in queries} for n, queries in split.items()}
    assert sum(map(len, words.values())) == len(set().union(*words.values())) == 500
    assert len(split["train"]) == pytest.approx(300, abs=40)
    assert len(split["test"]) == pytest.approx(100, abs=30)


def test_a_query_stays_in_its_split_when_others_come(tmp_path):
    few = read_queries(write(tmp_path, query=["hat"], item_id=["a"]), ITEMS).by_split
    more = [f"q{number}" for number in range(50)]
    uri = write(tmp_path, query=["hat", *more], item_id=["a"] * 51)
    many = read_queries(uri, ITEMS).by_split
    (home,) = [name for name, queries in few.items() if queries]
    assert "hat" in [query.text for query in many[home]]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"query": ["hat"]}, "no column item_id"),
        ({"query": ["hat"], "item_id": ["nowhere"]}, "no query for an item.*unknown_item"),
        ({"query": ["hat"], "item_id": ["a"], "relevance": ["much"]}, "relevance must be a number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path, columns, told):
    uri = write(tmp_path, **columns)
    with pytest.raises(ValueError, match=told) as caught:
        read_queries(uri, ITEMS)
    assert uri in str(caught.value)


def test_what_is_not_parquet_is_refused_by_name(tmp_path):
    path = tmp_path / "queries.parquet"
    path.write_text("query,item_id")
    with pytest.raises(ValueError, match="queries.parquet is empty, truncated or not Parquet"):
        read_queries(str(path), ITEMS)


def test_the_digest_changes_with_the_content(tmp_path):
    first = queries_digest(write(tmp_path, query=["hat"], item_id=["a"]))
    assert first == queries_digest(write(tmp_path, query=["hat"], item_id=["a"]))
    assert first != queries_digest(write(tmp_path, query=["hat"], item_id=["b"]))

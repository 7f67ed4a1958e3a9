"""Words of English and Chinese, and BM25 over them: by hand, by property, and by broken files."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.index.item_index import Ranking
from recsys.index.lexical import (
    K1,
    MAX_QUERY_CHARS,
    B,
    LexicalIndex,
    check_query,
    item_words,
    load_lexical,
    plain_query,
    save_lexical,
    split_words,
)

TITLES = ["red hammer", "red red nail", "blue drill", "苹果手机壳", None]


def make_index(ranking: Ranking | None = None) -> LexicalIndex:
    return LexicalIndex.build([split_words(title or "") for title in TITLES], ranking)


def test_words_of_items_that_come_later_are_scored_in_the_measure_of_the_index():
    index, later = make_index(), Ranking(len(TITLES) + 1, None, None)
    again = load_lexical(save_lexical(index)).with_words(
        {1: split_words("red red nail"), 5: split_words("red hammer")}, later
    )
    for query in ("red", "red nail nail", "hammer", "苹果"):
        assert torch.equal(again.scores(query)[:5], index.scores(query))
        assert again.scores(query)[5] == index.scores(query)[0]
    changed = again.with_words({0: ["zorblax"], 3: []}, later)
    assert found(changed, "zorblax") == [0]
    assert found(changed, "hammer") == [5]
    assert found(changed, "苹果") == []
    # A word that no item had is as rare as can be: ln(1 + (N + 0.5) / 0.5).
    rare = math.log(1 + 5.5 / 0.5) / (1 + K1 * (1 - B + B * 1 / index.mean_words))
    assert changed.scores("zorblax")[0] == pytest.approx(rare)


def found(index: LexicalIndex, query: str, top_k: int = 5, **limits: torch.Tensor) -> list[int]:
    return index.search(query, top_k, **limits)[1].tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Running SHOES", ["run", "shoe"]),
        ("ＧＴＸ７６０", ["gtx760", "gtx", "760"]),
        ("f/2.8 and 1,000", ["f", "2.8", "and", "1,000"]),
        ("café", ["cafe"]),
        ("नमस्ते", ["नमस्ते"]),
        ("手机 phone", ["手机", "phone"]),
        ("'; DROP TABLE items;--", ["drop", "tabl", "item"]),
        ("😀 ... \x00", []),
        ("\u2764\ufe0f love", ["love"]),
        ("1 \u0303 2", ["1", "2"]),
        ("", []),
    ],
)
def test_a_text_is_cut_into_words(text, words):
    assert split_words(text) == words


def test_a_long_chinese_word_is_found_by_its_parts_as_well():
    assert {"笔记本", "电脑", "笔记本电脑"} <= set(split_words("苹果笔记本电脑"))


def test_a_score_is_that_of_the_formula():
    lengths = [2, 3, 2, 0, 0]
    lengths[3] = len(split_words(TITLES[3] or ""))
    lengths[4] = 1  # an item without words holds one that no query has
    mean = sum(lengths) / 5
    idf = math.log(1 + (5 - 2 + 0.5) / (2 + 0.5))
    wanted = [
        idf * tf / (tf + K1 * (1 - B + B * length / mean))
        for tf, length in zip([1, 2], lengths[:2], strict=True)
    ]
    assert make_index().scores("red").tolist() == pytest.approx([*wanted, 0, 0, 0], abs=1e-6)


def test_only_items_with_a_word_of_the_query_are_found_and_the_best_come_first():
    assert found(make_index(), "red hammer") == [0, 1]
    assert found(make_index(), "red hammer", top_k=1) == [0]
    assert found(make_index(), "手机") == [3]


@pytest.mark.parametrize("query", ["", "zzz qqq", "😀", "\x00", "   "])
def test_a_query_without_a_known_word_finds_nothing(query):
    scores, items = make_index().search(query, 5)
    assert (len(scores), len(items)) == (0, 0)


def test_removed_and_not_allowed_items_are_not_found():
    removed = torch.tensor([True, False, False, False, False])
    assert found(make_index(Ranking(5, None, removed)), "red") == [1]
    allowed = torch.tensor([True, False, True, True, True])
    assert found(make_index(), "red", allowed_N=allowed) == [0]


def test_of_equal_scores_the_earlier_in_order_comes_first():
    index = LexicalIndex.build([["a"]] * 4, Ranking(4, torch.tensor([2, 0, 3, 1]), None))
    assert found(index, "a") == [2, 0, 3, 1]
    assert found(index, "a", top_k=2) == [2, 0]


def test_an_index_of_items_without_words_finds_nothing_before_and_after_it_is_saved():
    index = LexicalIndex.build([[], []])
    assert found(index, "red") == found(load_lexical(save_lexical(index)), "red") == []


def test_saving_gives_the_same_bytes_each_time_and_loading_the_same_scores():
    index = make_index()
    content = save_lexical(index)
    assert content == save_lexical(make_index())
    for query in ("red", "nail drill", "手机"):
        assert torch.equal(load_lexical(content).scores(query), index.scores(query))


def test_an_index_with_a_pickle_in_it_is_refused():
    class Evil:
        def __reduce__(self) -> tuple:
            return print, ("executed",)

    arrays, content = io.BytesIO(), io.BytesIO()
    np.save(arrays, np.array([Evil()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(io.BytesIO(save_lexical(make_index()))) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    parts["data.csc.index.npy"] = arrays.getvalue()
    with zipfile.ZipFile(content, "w") as new:
        for name, part in parts.items():
            new.writestr(name, part)
    with pytest.raises(ValueError, match="allow_pickle"):
        load_lexical(content.getvalue())


def test_a_title_counts_twice_and_what_an_item_lacks_not_at_all():
    items = pa.table({"title": ["red", None], "brand": ["blue", ""], "other": ["x", "y"]})
    assert item_words(items, ["title", "brand", "category"]) == [["red", "red", "blue"], []]


def test_a_query_may_be_long_but_not_longer():
    check_query("a" * MAX_QUERY_CHARS)
    with pytest.raises(ValueError, match="10001 characters: send at most 10000"):
        check_query("a" * (MAX_QUERY_CHARS + 1))


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_no_text_breaks_a_search(text):
    scores, items = make_index().search(plain_query(text), 3)
    assert len(items) <= 3
    assert bool((scores > 0).all())


MARKS = st.text(st.characters(categories=["Mn", "Mc", "Lo", "Nd"]), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(MARKS, min_size=1, max_size=4))
def test_any_text_can_be_indexed_and_is_found_by_its_words(texts):
    words = [split_words(text) for text in texts]
    assert all(word for item in words for word in item)
    index = LexicalIndex.build(words)
    for row, item in enumerate(words):
        assert not item or row in found(index, texts[row])

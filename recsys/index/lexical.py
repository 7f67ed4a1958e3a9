"""Search by words: text to words in English and Chinese, and BM25 over the words of all items.

A word is what both an item and a query are cut into, so that they meet: English words lose their
endings, Chinese is cut by a dictionary, and `GTX760` is also `gtx` and `760`.

Shapes: N items, K results.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import re
import tempfile
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from recsys.data.text import clean_texts
from recsys.index.added_words import K1, AddedWords, B
from recsys.index.item_index import Ranking

if TYPE_CHECKING:
    from bm25s import BM25

LEXICAL = "lexical.zip"
_LENGTHS = "lengths.json"
TITLE = "title"
TITLE_WEIGHT = 2
"""A word of the title counts as if it stood there so often: the simple form of BM25F's weights."""
MAX_QUERY_CHARS = 10_000
MAX_QUERY_WORDS = 256
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def check_query(text: str) -> None:
    """Hold that a query is no longer than `MAX_QUERY_CHARS`.

    Raises:
        ValueError: it is.
    """
    if len(text) > MAX_QUERY_CHARS:
        raise ValueError(f"the query has {len(text)} characters: send at most {MAX_QUERY_CHARS}")


def plain_query(text: str) -> str:
    """A query as it is searched: clean text, without what no reader could see."""
    # Half of a surrogate pair, which JSON can hold, is no character.
    whole = text.encode("utf-8", "ignore").decode("utf-8")
    return clean_texts([whole], MAX_QUERY_CHARS)[0] or ""


def split_words(text: str) -> list[str]:
    """The words of a text, in its order, a word as often as it stands there.

    Letters of every script and numbers make words, and nothing else does: an emoji or a comma gives
    none. The text becomes NFKC and lower case, Latin letters lose their accents.
    """
    jieba, stemmer = _library("rjieba"), _library("Stemmer").Stemmer("english")
    plain = unicodedata.normalize("NFKC", text).lower()
    words: list[str] = []
    for match in _word_pattern().finditer(plain):
        han, word = match["han"], match["word"]
        words += jieba.cut_for_search(han) if han else _parts(word)
    return stemmer.stemWords(words)


@functools.cache
def _library(name: str) -> ModuleType:
    """A library of the extra `search`; with numba there, bm25s takes a second to load."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"search needs {name}: install recsys[search]") from error


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    # Vowel signs of Indic scripts are marks, which Python's \w leaves out.
    marks = "".join(chr(c) for c in range(0x10000) if unicodedata.category(chr(c))[0] == "M")
    letter = rf"(?:[^\W_{_HAN}]|[{marks}])"
    return re.compile(rf"(?P<han>[{_HAN}]+)|(?P<word>\d+(?:[.,]\d+)+|{letter}+)")


def _parts(word: str) -> list[str]:
    """A word without accents and, where letters and digits stand together, its parts as well;
    nothing where it has neither."""
    if not any(map(str.isalnum, word)):  # marks that stand on no letter, as after an emoji
        return []
    folded = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
    word = folded if folded.isascii() else word
    parts = re.findall(r"\d+|[^\W\d]+", word)
    return [word, *parts] if word.isalnum() and len(parts) > 1 else [word]


def item_words(items: pa.Table, fields: Sequence[str]) -> list[list[str]]:
    """The words of each item's columns `fields`, those of the title `TITLE_WEIGHT` times."""
    words: list[list[str]] = [[] for _ in range(len(items))]
    for field in fields:
        if field not in items.column_names:
            continue
        times = TITLE_WEIGHT if field == TITLE else 1
        for row, text in enumerate(items[field].to_pylist()):
            words[row] += times * split_words(str(text)) if text else []
    return words


class LexicalIndex:
    """BM25 over the words of N items. Of items with one score the earlier of `ranking` comes first.

    Scores are those of Lucene's variant: never negative, and 0 for an item with no word of the
    query.
    """

    def __init__(
        self,
        retriever: BM25,
        ranking: Ranking | None = None,
        mean_words: float = 0.0,
        added: AddedWords | None = None,
    ) -> None:
        """`mean_words` of an item, 0 where a file does not tell it; `added` came afterwards."""
        self._retriever = retriever
        self._num_items = int(retriever.scores["num_docs"])
        self._vocabulary: dict[str, int] = retriever.vocab_dict
        self._ranking = ranking or Ranking(self._num_items, None, None)
        self.mean_words = mean_words
        self._added = added

    @classmethod
    def build(cls, words: list[list[str]], ranking: Ranking | None = None) -> LexicalIndex:
        """The index of items given by their words (`item_words`); an item may have none."""
        vocabulary = {
            word: number for number, word in enumerate(sorted({w for i in words for w in i}))
        }
        # The library needs a word and an item with words; one that no query can hold does.
        vocabulary[""] = len(vocabulary)
        numbers = [[vocabulary[word] for word in item] or [vocabulary[""]] for item in words]
        retriever = _library("bm25s").BM25(k1=K1, b=B, method="lucene")
        retriever.index((numbers, vocabulary), show_progress=False)
        return cls(retriever, ranking, sum(map(len, numbers)) / max(1, len(numbers)))

    def with_words(self, words: Mapping[int, Sequence[str]], ranking: Ranking) -> LexicalIndex:
        """An index in which these items, by item index, have these words; `ranking` is of all N.

        What is below is shared, and so costs nothing again.
        """
        before = {} if self._added is None else self._added.words
        added = AddedWords({**before, **words}, self._num_items, self._items_with, self.mean_words)
        return LexicalIndex(self._retriever, ranking, self.mean_words, added)

    def scores(self, query: str) -> torch.Tensor:
        """(N,) float32 BM25 scores, 0 where an item has no word of the query."""
        words = split_words(query)
        scores_N = torch.zeros(len(self._ranking.order_N))
        known = [self._vocabulary[w] for w in words if w in self._vocabulary]
        if known:
            found = self._retriever.get_scores_from_ids(known[:MAX_QUERY_WORDS])
            scores_N[: self._num_items] = torch.from_numpy(found)
        if self._added is not None:
            self._added.put_into(scores_N, words[:MAX_QUERY_WORDS])
        return scores_N

    def _items_with(self, word: str) -> int:
        """How many items of the index below have a word."""
        column = self._vocabulary.get(word)
        if column is None:
            return 0
        starts = self._retriever.scores["indptr"]
        return int(starts[column + 1] - starts[column])

    def search(
        self, query: str, top_k: int, allowed_N: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and item indexes, (K,) each, best first: at most `top_k` items, those that have a
        word of the query and, with a mask, are in it."""
        scores_1N = self.scores(query)[None]
        scores_1N[scores_1N <= 0] = -torch.inf
        self._ranking.leave_out(scores_1N, [[]], [allowed_N])
        scores_1K, items_1K = self._ranking.top(scores_1N, top_k)
        found_K = scores_1K[0] > -torch.inf
        return scores_1K[0, found_K], items_1K[0, found_K]


def save_lexical(index: LexicalIndex) -> bytes:
    """The index as a zip file of arrays and JSON, the same bytes for the same index."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as archive:
        index._retriever.save(folder, show_progress=False)
        Path(folder, _LENGTHS).write_text(json.dumps({"mean_words": index.mean_words}))
        for path in sorted(Path(folder).iterdir()):
            entry = zipfile.ZipInfo(path.name, _ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def load_lexical(content: bytes, ranking: Ranking | None = None) -> LexicalIndex:
    """The index that `save_lexical` wrote. Nothing in it is executed: arrays are read unpickled."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder)
        lengths = Path(folder, _LENGTHS)
        mean = json.loads(lengths.read_text())["mean_words"] if lengths.exists() else 0.0
        retriever = _library("bm25s").BM25.load(folder, show_progress=False, mmap=False)
        return LexicalIndex(retriever, ranking, mean)

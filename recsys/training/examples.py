"""What a language model is pretrained on: texts of the shop, and which of them belong together.

Made once by the driver, which holds all texts' tokens in memory, and read by every worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.artifact import Artifact, parquet_bytes
from recsys.config import PretrainingConfig
from recsys.data.tokenize import item_texts, load_tokenizer, tokenize
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary
from recsys.storage import read_bytes, write_bytes

TEXTS, PAIRS = "texts.parquet", "pairs.parquet"
TITLE = "title"
GROUP, LEFT, RIGHT = "group", "left", "right"
QUERY = "query"


@dataclass(frozen=True)
class Examples:
    """T texts and P pairs of them.

    `token_ids` are T lists, and `groups` (T,) says which texts are of one item, or of items with
    the same words: none of these is a negative of another. `pairs` (P, 2) are rows of texts; where
    single texts are learned from, a text is paired with itself.
    """

    token_ids: pa.ChunkedArray
    groups: np.ndarray
    pairs: np.ndarray

    def write(self, uri: str) -> None:
        """Write both tables into the folder `uri`."""
        texts = pa.table({schema.TOKEN_IDS: self.token_ids, GROUP: self.groups})
        write_bytes(f"{uri}/{TEXTS}", parquet_bytes(texts))
        pairs = pa.table({LEFT: self.pairs[:, 0], RIGHT: self.pairs[:, 1]})
        write_bytes(f"{uri}/{PAIRS}", parquet_bytes(pairs))

    @classmethod
    def read(cls, uri: str) -> Self:
        """What `write` wrote."""
        texts = _read_parquet(f"{uri}/{TEXTS}")
        pairs = _read_parquet(f"{uri}/{PAIRS}")
        columns = [pairs[LEFT].to_numpy(), pairs[RIGHT].to_numpy()]
        return cls(texts[schema.TOKEN_IDS], texts[GROUP].to_numpy(), np.stack(columns, axis=1))


def make_examples(dataset: Artifact, config: PretrainingConfig) -> Examples:
    """The texts and pairs of a dataset that the objective learns from.

    Raises:
        ValueError: the dataset has not one of what is asked for.
    """
    items = dataset.read_table("items.parquet")
    whole_N = _groups(items[schema.TEXT].to_pylist())
    present_N = ~np.array(items[schema.REMOVED].to_pylist(), dtype=bool)
    if config.objective == "contrastive":
        return _pairs(dataset, config, items, whole_N, present_N)
    rows = np.flatnonzero(present_N)
    return Examples(items[schema.TOKEN_IDS], whole_N, np.stack([rows, rows], axis=1))


def _groups(texts: list[str]) -> np.ndarray:
    """(N,) for each text the first row with the same one."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, row) for row, text in enumerate(texts)], dtype=np.int64)


def _pairs(
    dataset: Artifact,
    config: PretrainingConfig,
    items: pa.Table,
    groups_N: np.ndarray,
    present_N: np.ndarray,
) -> Examples:
    """Texts are whole ones, then titles, then what is beside the title, then queries."""
    token_ids, groups = [items[schema.TOKEN_IDS]], [groups_N]
    pairs: list[np.ndarray] = []
    if "text" in config.pairs:
        parts, has_both_N = _title_and_rest(dataset, items)
        rows = np.flatnonzero(has_both_N & present_N)
        count, start = len(items), sum(map(len, token_ids))
        found = np.stack([start + rows, start + count + rows], axis=1)
        token_ids += parts
        groups += [groups_N, groups_N]
        pairs.append(sample([found], config.max_pairs, config.seed))
    if "history" in config.pairs:
        follow = _differing(consecutive_items(dataset), groups_N)
        pairs.append(sample(follow, config.max_pairs, config.seed))
    if "query" in config.pairs:
        texts, found = _queries(config.queries, items, present_N)
        start = sum(map(len, token_ids))
        token_ids.append(_tokenize(dataset, texts))
        groups.append(len(items) + np.arange(len(texts)))
        found = found + np.array([start, 0])
        pairs.append(sample([found], config.max_pairs, config.seed))
    _check(pairs, config, dataset.uri)
    chunks = [chunk for column in token_ids for chunk in column.chunks]
    return Examples(pa.chunked_array(chunks), np.concatenate(groups), np.concatenate(pairs))


def _check(pairs: list[np.ndarray], config: PretrainingConfig, uri: str) -> None:
    for kind, found in zip(_in_order(config), pairs, strict=True):
        if not len(found):
            raise ValueError(
                f"pretraining.pairs asks for '{kind}', and {uri} gives none: take it out of the "
                "list, or look into what the dataset was made from"
            )


def _in_order(config: PretrainingConfig) -> list[str]:
    return [kind for kind in ("text", "history", "query") if kind in config.pairs]


def _title_and_rest(dataset: Artifact, items: pa.Table) -> tuple[list[pa.ChunkedArray], np.ndarray]:
    """Tokens of titles and of all other text, and (N,) whether an item has both."""
    fields = tuple(dataset.manifest.config["prepare"]["text_fields"])
    titles = item_texts(items, (TITLE,))
    rests = item_texts(items, tuple(field for field in fields if field != TITLE))
    has_both = np.array([bool(t and r) for t, r in zip(titles, rests, strict=True)], dtype=bool)
    return [_tokenize(dataset, titles), _tokenize(dataset, rests)], has_both


def _tokenize(dataset: Artifact, texts: list[str]) -> pa.ChunkedArray:
    """As prepare tokenised the items of this dataset."""
    config = dataset.manifest.config
    tokenizer = load_tokenizer(config["backbone"])
    rows = tokenize(tokenizer, texts, config["prepare"]["max_item_tokens"]) if texts else []
    return pa.chunked_array([pa.array(rows, pa.list_(pa.int32()))])


def consecutive_items(dataset: Artifact) -> Iterator[np.ndarray]:
    """(M, 2) item indexes of events that follow each other in one window, file by file."""
    for name in dataset.names("train/"):
        lists = dataset.read_table(name)[schema.ITEM_INDEXES].combine_chunks()
        items, windows = lists.flatten().to_numpy(), lists.value_parent_indices().to_numpy()
        same = windows[1:] == windows[:-1]
        yield np.stack([items[:-1][same], items[1:][same]], axis=1).astype(np.int64)


def _differing(blocks: Iterable[np.ndarray], groups_N: np.ndarray) -> Iterator[np.ndarray]:
    for pairs in blocks:
        yield pairs[groups_N[pairs[:, 0]] != groups_N[pairs[:, 1]]]


def _queries(uri: str, items: pa.Table, present_N: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The distinct queries, and (P, 2) query numbers with the index of a present item."""
    table = _read_parquet(uri)
    lacking = sorted({QUERY, schema.ITEM_ID} - set(table.column_names))
    if lacking:
        raise ValueError(f"{uri} has no column {', '.join(lacking)}: it needs query and item_id")
    known = ItemVocabulary(items[schema.ITEM_ID])
    ids = table[schema.ITEM_ID].cast(pa.large_string()).to_pylist()
    found = known.indexes_of(ids)
    numbers: dict[str, int] = {}
    given = [numbers.setdefault(text or "", len(numbers)) for text in table[QUERY].to_pylist()]
    pairs = np.stack([np.array(given, dtype=np.int64), found.astype(np.int64)], axis=1)
    kept = (found != UNKNOWN) & (pairs[:, 0] != numbers.get("", UNKNOWN))
    pairs = pairs[kept]
    return list(numbers), pairs[present_N[pairs[:, 1]]]


def sample(blocks: Iterable[np.ndarray], count: int, seed: int) -> np.ndarray:
    """At most `count` of all blocks' pairs, each as likely as any other, in (count, 2).

    Each pair draws a number and the smallest stay, so no more than `count` and a block are held.
    """
    random = np.random.default_rng(seed)
    kept, drawn = np.empty((0, 2), dtype=np.int64), np.empty(0)
    for pairs in blocks:
        kept = np.concatenate([kept, pairs])
        drawn = np.concatenate([drawn, random.random(len(pairs))])
        if len(kept) > count:
            smallest = np.argpartition(drawn, count)[:count]
            kept, drawn = kept[smallest], drawn[smallest]
    return kept


def _read_parquet(uri: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(read_bytes(uri)))

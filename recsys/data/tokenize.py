"""Item text to token ids. Pure: the same call in jobs and in serving."""

from __future__ import annotations

import functools
import os

import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from recsys import schema
from recsys.pretrained import resolve_backbone


@functools.cache
def load_tokenizer(backbone: str | os.PathLike) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone."""
    return AutoTokenizer.from_pretrained(resolve_backbone(str(backbone)))


def item_texts(items: pa.Table, fields: tuple[str, ...]) -> list[str]:
    """One text an item, `field: value` a line; fields the item lacks are left out."""
    present = [f for f in fields if f in items.column_names]
    columns = {f: items[f].to_pylist() for f in present}
    return [
        "\n".join(f"{f}: {columns[f][row]}" for f in present if columns[f][row])
        for row in range(len(items))
    ]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_tokens: int
) -> list[list[int]]:
    """Token ids of each text with the tokenizer's special tokens, at most `max_tokens` long."""
    return tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]  # pyright: ignore


def with_tokens(
    items: pa.Table, tokenizer: PreTrainedTokenizerBase, fields: tuple[str, ...], max_tokens: int
) -> pa.Table:
    """The items with columns `text` and `token_ids`."""
    texts = item_texts(items, fields)
    token_ids = tokenize(tokenizer, texts, max_tokens)
    items = items.append_column(schema.TEXT, pa.array(texts, pa.large_string()))
    return items.append_column(schema.TOKEN_IDS, pa.array(token_ids, pa.list_(pa.int32())))

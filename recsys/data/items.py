"""The item table of a dataset: checked, in index order, tokenised.

An item keeps its index from one dataset to the next: known items stay where they are, new ones are
appended in the order of their ids, and an item that is gone stays as a tombstone, `removed`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import ray

from recsys import schema
from recsys.config import PrepareConfig
from recsys.data.sources import Source, read_source
from recsys.data.tokenize import load_tokenizer, with_tokens
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary

TOKENIZE_ITEMS = 4096
"""Items that a task tokenises."""
DERIVED = (schema.ITEM_INDEX, schema.TEXT, schema.TOKEN_IDS, schema.TRAIN_COUNT)
"""What prepare adds to an item, beside `removed`."""


def read_items(source: Source) -> pa.Table:
    """The raw item table with ids as text."""
    raw = read_source(source)
    place = raw.column_names.index(schema.ITEM_ID)
    return raw.set_column(place, schema.ITEM_ID, raw[schema.ITEM_ID].cast(pa.large_string()))


def number_items(items: pa.Table, previous: pa.Table | None) -> pa.Table:
    """Checked items, one row an id, in index order, with `item_index` and `removed`.

    `previous` is the item table of the dataset before.
    """
    ordered = items.sort_by(schema.ITEM_ID)
    if previous is None:
        return _indexed(ordered, np.zeros(len(ordered), dtype=bool))
    known = ItemVocabulary(previous[schema.ITEM_ID]).indexes_of(_ids(ordered))
    now = ItemVocabulary(ordered[schema.ITEM_ID]).indexes_of(_ids(previous))
    old = previous.drop_columns(
        [n for n in (*DERIVED, schema.REMOVED) if n in previous.column_names]
    )
    # Rows to choose from: the present items, and behind them the previous dataset's.
    pool = pa.concat_tables([ordered, old], promote_options="permissive")
    kept = np.where(now != UNKNOWN, now, len(ordered) + np.arange(len(previous)))
    rows = np.concatenate([kept, np.flatnonzero(known == UNKNOWN)])
    return _indexed(pool.take(pa.array(rows)), rows >= len(ordered))


def _ids(items: pa.Table) -> list[str]:
    return items[schema.ITEM_ID].to_pylist()


def _indexed(items: pa.Table, removed: np.ndarray) -> pa.Table:
    indexes = pa.array(np.arange(len(items), dtype=np.int32))
    return items.append_column(schema.ITEM_INDEX, indexes).append_column(
        schema.REMOVED, pa.array(removed)
    )


def start_tokenizing(
    items: pa.Table, config: PrepareConfig, backbone: str
) -> list[ray.ObjectRef[pa.Table]]:
    """Tasks that give the items, part by part, `text` and `token_ids`."""
    return [
        _tokenize.remote(
            items.slice(start, TOKENIZE_ITEMS), backbone, config.text_fields, config.max_item_tokens
        )
        for start in range(0, len(items), TOKENIZE_ITEMS)
    ]


@ray.remote
def _tokenize(items: pa.Table, backbone: str, fields: tuple[str, ...], max_tokens: int) -> pa.Table:
    return with_tokens(items, load_tokenizer(backbone), fields, max_tokens)

"""Item text in other words, by rules: words dropped, parts in another order, fields left out.

After EDA (Wei and Zou 2019, arXiv 1901.11196), of whose four operations dropping and swapping need
no dictionary and so work in every language. Paraphrases of a language model can stand in for these
as a table (`training.augment.paraphrases`).
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.config import AugmentConfig
from recsys.storage import read_bytes

STREAM = 0x9A4A
"""Keeps these draws apart from others by the same seed."""
DROPPED = 0.15
"""Share of the words that go; EDA found 0.05 to 0.2 best."""
_PART = re.compile(r"\s*[,;|/()\[\]，；、（）]\s*")
_FIELD = re.compile(r"^(\w+): ", re.ASCII)


def paraphrases_of(items: pa.Table, augment: AugmentConfig, seed: int) -> list[str]:
    """All items in other words, and again as often as asked for, one after the other.

    Raises:
        ValueError: the file of paraphrases cannot be read, or lacks one of its columns.
    """
    texts = items[schema.TEXT].to_pylist()
    if augment.paraphrases:
        given = _read(augment.paraphrases)
        ids = items[schema.ITEM_ID].to_pylist()
        return [given.get(item_id) or text for item_id, text in zip(ids, texts, strict=True)]
    return [
        paraphrase(text, np.random.default_rng([STREAM, seed, number, row]))
        for number in range(augment.num_paraphrases)
        for row, text in enumerate(texts)
    ]


def _read(uri: str) -> dict[str, str]:
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(uri)))
        columns = table.select([schema.ITEM_ID, schema.TEXT]).to_pydict()
    except (pa.ArrowInvalid, KeyError) as error:
        raise ValueError(
            f"{uri}: training.augment.paraphrases is Parquet with columns 'item_id' and 'text': "
            f"{error}"
        ) from error
    return dict(zip(map(str, columns[schema.ITEM_ID]), columns[schema.TEXT], strict=True))


def paraphrase(text: str, random: np.random.Generator) -> str:
    """`text`, lines of `field: value`, with the first field kept and each value altered."""
    first, *others = text.split("\n")
    kept = [line for line in others if random.random() >= DROPPED]
    return "\n".join(_alter(line, random) for line in [first, *kept])


def _alter(line: str, random: np.random.Generator) -> str:
    name = _FIELD.match(line)
    start = name.end() if name else 0
    parts = [part for part in _PART.split(line[start:]) if part]
    if not parts:
        return line
    # The head of a title says what the thing is: it stays in front.
    order = [0, *(1 + random.permutation(len(parts) - 1))]
    return line[:start] + ", ".join(_drop_words(parts[at], random) for at in order)


def _drop_words(part: str, random: np.random.Generator) -> str:
    words = part.split()
    kept = [word for word in words if random.random() >= DROPPED]
    return " ".join(kept or words[:1])

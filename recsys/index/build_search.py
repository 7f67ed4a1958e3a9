"""What an index holds for search: words and text vectors of the items, and what queries teach.

Shapes: N items, Q queries, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
import torch.nn.functional as F

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import SearchConfig
from recsys.index.fit_search import Learned, fit_fusion
from recsys.index.fusion import FUSION, Fusion, save_fusion
from recsys.index.item_index import Ranking, make_index, save_index
from recsys.index.lexical import LEXICAL, LexicalIndex, item_words, save_lexical
from recsys.index.queries import JudgedQuery, read_queries
from recsys.index.text_vectors import TEXT_VECTORS, QueryEncoder

PRECISION = "int8"
"""Of the text vectors: a quarter of the memory."""


def add_search(
    writer: ArtifactWriter,
    config: SearchConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    text_NE: torch.Tensor | None,
    ranking: Ranking,
) -> dict[str, Any]:
    """Write what `Searcher` reads, and tell what was learned.

    Raises:
        ValueError: the file of queries cannot be used.
    """
    items = dataset.read_table("items.parquet")
    fields = dataset.manifest.config["prepare"]["text_fields"]
    lexical = LexicalIndex.build(item_words(items, fields), ranking)
    writer.add_bytes(LEXICAL, save_lexical(lexical))
    if text_NE is None:
        return {"dense": False}
    vectors_NE = F.normalize(text_NE, dim=1)
    stored = make_index(vectors_NE, PRECISION, ranking.order_N, ranking.removed_N)
    writer.add_bytes(TEXT_VECTORS, save_index(stored))
    encoder = QueryEncoder.load(checkpoint, config.query_prompt)
    assert encoder is not None
    learned = learn(config, items, encoder, vectors_NE, lexical)
    writer.add_bytes(FUSION, save_fusion(learned.fusion))
    told = {"dense_weight": learned.fusion.dense_weight, "epochs": learned.epochs}
    return {"dense": True, **told, "valid_ndcg@10": learned.valid_ndcg}


def learn(
    config: SearchConfig,
    items: pa.Table,
    encoder: QueryEncoder,
    vectors_NE: torch.Tensor,
    lexical: LexicalIndex,
) -> Learned:
    """The fusion that the file of queries teaches; the plain one where there is no file."""
    if not config.queries:
        return Learned(Fusion(), 0, 0.0)
    queries = read_queries(config.queries, items).by_split

    def encoded(some: Sequence[JudgedQuery]) -> tuple[Sequence[JudgedQuery], torch.Tensor]:
        return some, encoder.encode([query.text for query in some])

    train = encoded(queries["train"] if config.epochs else [])
    return fit_fusion(train, encoded(queries["valid"]), vectors_NE, lexical, config.epochs)

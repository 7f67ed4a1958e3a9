"""Search on judged queries against the better of BM25 and the frozen language model, by NDCG@10.

    python -m benchmarks.search_quality --data <dir>

The directory holds items.parquet and queries.parquet. The searcher is put together as an index
would, without a trained model: plain search reads none of it. Split, learning and measuring are
those of `index` and `evaluate_search`, so no measured query, in any letters, was learned from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro

from recsys import schema
from recsys.config import ModelConfig, PrepareConfig, SearchConfig
from recsys.data.tokenize import item_texts, load_tokenizer
from recsys.engine.catalogue import Catalogue
from recsys.engine.search import DenseSearch, Searcher
from recsys.eval.search import BM25, FROZEN, NDCG, TRAINED, describe_queries, measure
from recsys.index.build_search import PRECISION, learn
from recsys.index.item_index import make_index
from recsys.index.lexical import LexicalIndex, item_words
from recsys.index.queries import read_queries
from recsys.index.text_vectors import QueryEncoder
from recsys.models.backbone import load_text_encoder

TARGET = 1.25


@dataclass(frozen=True)
class Arguments:
    """What is searched."""

    data: Path
    """Directory with items.parquet and queries.parquet."""
    cache: Path | None = None
    """File that keeps the items' text vectors from one run to the next."""


def main(arguments: Arguments) -> None:
    """Measure, and print one line of JSON."""
    torch.manual_seed(0)
    raw, fields = pq.read_table(arguments.data / "items.parquet"), PrepareConfig().text_fields
    items = raw.append_column(schema.TRAIN_COUNT, pa.array([0] * len(raw)))
    items = items.append_column(schema.REMOVED, pa.array([False] * len(raw)))
    model = ModelConfig()
    encoder = QueryEncoder(load_text_encoder(model), load_tokenizer(model.backbone))
    vectors_NE = _vectors(arguments, encoder, item_texts(items, fields))
    catalogue, words = Catalogue(items), item_words(items, fields)
    ranking = catalogue.ranking
    lexical = LexicalIndex.build(words, ranking)
    config = SearchConfig(queries=str(arguments.data / "queries.parquet"))
    learned = learn(config, items, encoder, vectors_NE, lexical)
    stored = make_index(vectors_NE, PRECISION, ranking.order_N, ranking.removed_N)
    searcher = Searcher(lexical, DenseSearch(encoder, stored), learned.fusion, catalogue)
    queries = read_queries(config.queries, items)
    scores = measure(searcher, catalogue, words, queries.by_split["test"])
    peer = max(scores[name]["all"][NDCG] for name in (BM25, FROZEN))
    result = {
        "benchmark": "search_quality",
        "peer": "the better of BM25 and the frozen language model, NDCG@10",
        "ratio": round(scores[TRAINED]["all"][NDCG] / peer, 3),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            **describe_queries(queries),
            "dense_weight": learned.fusion.dense_weight,
            "epochs": learned.epochs,
            "models": scores,
        },
    }
    print(json.dumps(result))


def _vectors(arguments: Arguments, encoder: QueryEncoder, texts: list[str]) -> torch.Tensor:
    """(N, E) by the frozen language model, at length 1."""
    if arguments.cache is not None and arguments.cache.exists():
        return torch.load(arguments.cache, weights_only=True)
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors_NE = torch.empty(len(texts), encoder.size)
    vectors_NE[by_length] = encoder.encode([texts[row] for row in by_length])
    if arguments.cache is not None:
        torch.save(vectors_NE, arguments.cache)
    return vectors_NE


if __name__ == "__main__":
    main(tyro.cli(Arguments))

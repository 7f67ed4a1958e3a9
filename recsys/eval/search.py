"""The evaluate_search stage: index + judged queries -> `report` artifact.

Every query of the test split is answered by the searcher that also serves, and by its parts and
baselines. What was learned has not seen these queries, nor others of the same words.

Shapes: R queries or rows, K results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import SearchConfig
from recsys.data.collate import histories_of, read_rows, targets_of
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Event, Recommender
from recsys.engine.search import SEARCH, Searcher, SearchQuery
from recsys.eval.held_out import ITEMS, check_lineage
from recsys.index.fusion import Fusion
from recsys.index.item_index import Ranking
from recsys.index.lexical import item_words, split_words
from recsys.index.queries import JudgedQueries, JudgedQuery, read_queries
from recsys.metrics import NO_ITEM, ranking_metrics
from recsys.schema import UNKNOWN_TIME, History

log = logging.getLogger(__name__)

TRAINED, BM25, TFIDF, FROZEN, RRF = "search", "bm25", "tfidf", "lm_zero_shot", "rrf"
CUTOFF, DEPTH = 10, 100
NDCG, MRR, RECALL, ZERO = f"ndcg@{CUTOFF}", f"mrr@{DEPTH}", f"recall@{DEPTH}", "zero_results"
LENGTHS = {"1 word": (1, 1), "2-3 words": (2, 3), "4+ words": (4, None)}
PERSONAL = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
MAX_PERSONAL_ROWS = 2_000
BATCH = 64

Rank = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (R, `DEPTH`) item indexes, best first, filled up with `NO_ITEM`."""
Scores = dict[str, dict[str, float]]
"""By segment the mean of each metric."""


def evaluate_search(
    config: SearchConfig, dataset: Artifact, checkpoint: Artifact, index: Artifact, output: str
) -> Artifact:
    """Measure search, its parts and its baselines, and personal beside plain search.

    Raises:
        ValueError: there are no queries to measure, the index holds no search, or the artifacts
            were not made from one another.
    """
    if not config.queries:
        raise ValueError("search.queries is missing: the file of queries with items that fit")
    check_lineage(dataset, checkpoint, index)
    recommender = Recommender.load(checkpoint, index, filter_seen=False)
    catalogue = recommender.catalogue
    searcher = Searcher.load(checkpoint, index, recommender)
    items = dataset.read_table(ITEMS)
    queries = read_queries(config.queries, items)
    words = item_words(items, dataset.manifest.config["prepare"]["text_fields"])
    report = {
        "data": describe_queries(queries),
        "learned": index.manifest.facts["search"],
        "models": measure(searcher, catalogue, words, queries.by_split["test"]),
        "personal": _measure_personal(searcher, catalogue, dataset, queries.by_split["test"]),
    }
    writer = ArtifactWriter(output, "report")
    writer.add_json("report.json", report)
    _log_summary(report)
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index}
    return writer.publish(
        {"search": config.model_dump(mode="json")},
        {name: artifact.digest for name, artifact in parents.items()},
    )


def describe_queries(queries: JudgedQueries) -> dict[str, Any]:
    """How many rows and distinct queries there are."""
    return {"rows": queries.rows, "queries": {n: len(q) for n, q in queries.by_split.items()}}


def measure(
    searcher: Searcher,
    catalogue: Catalogue,
    words: list[list[str]],
    queries: Sequence[JudgedQuery],
) -> dict[str, Scores]:
    """By ranker, the scores of all queries and of those of a length.

    Raises:
        ValueError: there are no queries.
    """
    if not queries:
        raise ValueError("no query is in the test split: give more distinct queries")
    texts = [query.text for query in queries]
    rankers: dict[str, Rank] = {TFIDF: _tfidf(words, catalogue.ranking)}
    for name, fusion in _parts(searcher).items():
        rankers[name] = _rank_by(searcher.with_fusion(fusion), catalogue)
    return {name: score_rankings(rank(texts), queries) for name, rank in rankers.items()}


def score_rankings(ranked: np.ndarray, queries: Sequence[JudgedQuery]) -> Scores:
    """Means over all queries, and over those with so many words.

    `ndcg@10` takes the relevance as the gain (Jarvelin & Kekalainen 2002), and with one relevance
    is that of `ranking_metrics`; the others ask whether an item fits at all. `zero_results` is the
    share of queries that found nothing.
    """
    found = ranking_metrics(ranked, [query.items for query in queries], [DEPTH])
    rows = {
        NDCG: np.array([graded_ndcg(r, q) for r, q in zip(ranked, queries, strict=True)]),
        MRR: found[MRR],
        RECALL: found[RECALL],
        ZERO: (ranked == NO_ITEM).all(axis=1).astype(np.float64),
    }
    scores = {"all": _means(rows, np.ones(len(queries), dtype=bool))}
    sizes = np.array([len(split_words(query.text)) for query in queries])
    for name, (low, high) in LENGTHS.items():
        within = (sizes >= low) & (sizes <= (high or sizes.max()))
        if within.any():
            scores[name] = _means(rows, within)
    return scores


def graded_ndcg(ranked_K: np.ndarray, query: JudgedQuery) -> float:
    """NDCG@10 of one ranking with the relevance of its items as gains."""
    gains = dict(zip(query.items.tolist(), query.relevance.tolist(), strict=True))
    found = np.array([gains.get(item, 0.0) for item in ranked_K[:CUTOFF].tolist()])
    best = np.sort(query.relevance)[::-1][:CUTOFF]
    return float(_dcg(found) / _dcg(best))


def _dcg(gains: np.ndarray) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _means(rows: dict[str, np.ndarray], within: np.ndarray) -> dict[str, float]:
    means = {name: float(values[within].mean()) for name, values in rows.items()}
    return means | {"queries": int(within.sum())}


def _parts(searcher: Searcher) -> dict[str, Fusion]:
    """The searcher as it serves, and by what of it is ranked."""
    if not searcher.is_dense:
        return {TRAINED: searcher.fusion}
    plain = {BM25: Fusion(0.0), FROZEN: Fusion(1.0), RRF: Fusion()}
    return {**plain, TRAINED: searcher.fusion}


def _rank_by(searcher: Searcher, catalogue: Catalogue) -> Rank:
    def rank(texts: Sequence[str]) -> np.ndarray:
        return rank_queries(searcher, catalogue, [SearchQuery(t, top_k=DEPTH) for t in texts])

    return rank


def rank_queries(
    searcher: Searcher, catalogue: Catalogue, queries: Sequence[SearchQuery]
) -> np.ndarray:
    """(R, `DEPTH`) what the searcher finds; popular items are not found."""
    ranked = np.full((len(queries), DEPTH), NO_ITEM)
    for start in range(0, len(queries), BATCH):
        answers = searcher.search(queries[start : start + BATCH])
        for row, answer in zip(ranked[start:], answers, strict=False):
            ids = [item.item_id for item in answer.items] if answer.source == SEARCH else []
            items, _, _ = catalogue.find(ids)
            row[: len(items)] = items
    return ranked


def _tfidf(words: list[list[str]], ranking: Ranking) -> Rank:
    """Cosines of TF-IDF vectors over the words that BM25 has."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    terms = TfidfVectorizer(analyzer=list, sublinear_tf=True)  # pyright: ignore
    items = terms.fit_transform(words)

    def rank(texts: Sequence[str]) -> np.ndarray:
        ranked = np.full((len(texts), DEPTH), NO_ITEM)
        vectors = terms.transform([split_words(text) for text in texts])
        for row, vector in zip(ranked, vectors, strict=True):
            scores_1N = torch.from_numpy((vector @ items.T).toarray())
            scores_1N[scores_1N <= 0] = -torch.inf
            ranking.leave_out(scores_1N, [[]])
            scores_1K, items_1K = ranking.top(scores_1N, DEPTH)
            found = items_1K[scores_1K > -torch.inf]
            row[: len(found)] = found.numpy()
        return ranked

    return rank


def _measure_personal(
    searcher: Searcher, catalogue: Catalogue, dataset: Artifact, queries: Sequence[JudgedQuery]
) -> dict[str, Any]:
    """NDCG@10 and MRR by how much the history counts, where a user searches for what was taken.

    A test row takes part that has a history and whose next item fits some query; it asks that
    query, and of several one by its row, and only the item that was taken counts.
    """
    asked = list(_asked(dataset, queries))[:MAX_PERSONAL_ROWS]
    if not asked:
        return {"rows": 0}
    names = dataset.manifest.config["prepare"]["events"]
    events = [_events(history, catalogue, names) for history, _, _ in asked]
    taken = [JudgedQuery(q.text, np.array([t]), np.ones(1)) for _, t, q in asked]
    found = {}
    for personal in PERSONAL:
        searches = [
            SearchQuery(query.text, history, DEPTH, personal)
            for query, history in zip(taken, events, strict=True)
        ]
        scores = score_rankings(rank_queries(searcher, catalogue, searches), taken)["all"]
        found[str(personal)] = {name: scores[name] for name in (NDCG, MRR)}
    return {"rows": len(asked), "by_personal": found}


def _asked(
    dataset: Artifact, queries: Sequence[JudgedQuery]
) -> Iterator[tuple[History, int, JudgedQuery]]:
    """History, the item that was taken, and a query that it fits."""
    fitting: dict[int, list[JudgedQuery]] = {}
    for query in queries:
        for item in query.items.tolist():
            fitting.setdefault(item, []).append(query)
    rows = read_rows(dataset, "test")
    pairs = zip(histories_of(rows), targets_of(rows), strict=True)
    for number, (history, targets) in enumerate(pairs):
        some = fitting.get(int(targets[0]), [])
        if some and len(history):
            yield history, int(targets[0]), some[number % len(some)]


def _events(history: History, catalogue: Catalogue, names: Sequence[str]) -> list[Event]:
    ids = catalogue.vocabulary.item_ids[history.item_indexes]
    rows = zip(ids, history.timestamps.tolist(), history.events.tolist(), strict=True)
    return [Event(i, None if t == UNKNOWN_TIME else t, names[int(e)]) for i, t, e in rows]


def _log_summary(report: dict[str, Any]) -> None:
    for name, scores in report["models"].items():
        shown = "  ".join(f"{metric} {value:.4f}" for metric, value in scores["all"].items())
        log.info("%-12s %s", name, shown)
    for personal, scores in report["personal"].get("by_personal", {}).items():
        log.info("personal %-4s %s %.4f", personal, NDCG, scores[NDCG])

"""The final ranker against the order of the search alone, on a generated shop that knows the truth.

    python -m benchmarks.ranker

Queries are divided as everywhere: three fifths to learn from, a fifth to choose by, a fifth that is
measured once, through the searcher that serves. The search learns its fusion from the same queries.
One ranker learns from judged queries. Two others see no judgement: they learn from simulated
clicks on what the search showed, in several orders, one with a click model and one that takes
clicks as they are. Ratio: NDCG@10 of the first against the search alone.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import torch
import torch.nn.functional as F
import tyro

from recsys import schema
from recsys.config import ModelConfig, PrepareConfig, SearchConfig, WorldConfig
from recsys.data.synthetic import generate, write_world
from recsys.data.tokenize import item_texts, load_tokenizer
from recsys.engine.catalogue import Catalogue
from recsys.engine.final_ranking import item_facts
from recsys.engine.fit_ranker import Fitted, clicked_lists, fit_ranker, judged_lists
from recsys.engine.search import DenseSearch, Searcher, SearchQuery
from recsys.eval.bootstrap import paired_differences
from recsys.eval.search import graded_ndcg, rank_queries
from recsys.index.build_search import PRECISION, learn
from recsys.index.item_index import make_index
from recsys.index.lexical import LexicalIndex, item_words
from recsys.index.queries import JudgedQuery, read_queries
from recsys.index.text_vectors import QueryEncoder
from recsys.models.backbone import load_text_encoder
from recsys.ranker.calibration import calibration_error
from recsys.ranker.shown import ShownList, fit_clicks

TARGET = 1.05
SHOWN, DEEP, NOISE = 10, 40, 0.5
"""Items a page, those that some order brings onto it, and the noise of the logarithm of a place."""
EXAMINATION = 1 / np.arange(1, SHOWN + 1)
LEAST, MOST = 0.05, 0.85
"""Chance of a click on what is looked at, for an item that fits not at all, and wholly."""


@dataclass(frozen=True)
class Arguments:
    """Size of the shop and of its log."""

    items: int = 1_000
    """Items of the catalogue."""
    queries: int = 1_500
    """Queries; those of the same words are one."""
    requests: int = 12
    """Searches logged for each query to learn from and to choose by."""
    seed: int = 0
    """Of the shop and the clicks."""
    split: Literal["valid", "test"] = "test"
    """What is measured: test once, and valid while anything is still chosen."""


def main(arguments: Arguments) -> None:
    """Measure, and print one line of JSON."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    searcher, catalogue, queries = _shop(arguments)
    facts = item_facts(catalogue)
    train, valid, test = (queries[name] for name in ("train", "valid", arguments.split))
    judged = _timed(
        lambda: fit_ranker(
            judged_lists(searcher, facts, train), judged_lists(searcher, facts, valid)
        )
    )
    random = np.random.default_rng(arguments.seed)
    logs = [_log(searcher, some, arguments.requests, random) for some in (train, valid)]
    model = fit_clicks([request for log in logs for request in log])
    fitted = {"judged": judged}
    for name, weighing in (("clicks", model), ("clicks_as_they_are", None)):
        (learned, depth), (chosen, _) = (
            clicked_lists(searcher, facts, log, weighing) for log in logs
        )
        fitted[name] = _timed(lambda a=learned, b=chosen, d=depth: fit_ranker(a, b, depth=d))
    alone = _ndcg(searcher, catalogue, test)
    found = {
        name: _ndcg(searcher.with_ranker(one.ranker), catalogue, test)
        for name, (one, _) in fitted.items()
    }
    ratio = float(found["judged"].mean() / alone.mean())
    result = {
        "benchmark": "ranker",
        "peer": "the fused search order, NDCG@10",
        "ratio": round(ratio, 3),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            "queries": {name: len(some) for name, some in queries.items()},
            "search_alone": float(alone.mean()),
            "rankers": {
                name: _told(one, seconds, alone, found[name])
                for name, (one, seconds) in fitted.items()
            },
            "clicks_against_as_they_are": _ahead(found["clicks_as_they_are"], found["clicks"]),
            "examination": {
                "true": EXAMINATION.round(3).tolist(),
                "found": model.examination.round(3).tolist(),
            },
            "calibration_error": _calibration(searcher, catalogue, judged[0], test),
            "ms_a_search": {
                "alone": _milliseconds(searcher, test),
                "ranked": _milliseconds(searcher.with_ranker(judged[0].ranker), test),
            },
        },
    }
    print(json.dumps(result))


def _shop(arguments: Arguments) -> tuple[Searcher, Catalogue, dict[str, list[JudgedQuery]]]:
    """The searcher of a generated shop, its catalogue, and its judged queries by split."""
    world = generate(
        WorldConfig(num_items=arguments.items, num_queries=arguments.queries, seed=arguments.seed)
    )
    counts = pl.Series(world.interactions[schema.ITEM_ID].combine_chunks()).value_counts()
    known = dict(counts.iter_rows())
    ids = world.items[schema.ITEM_ID].to_pylist()
    items = world.items.append_column(schema.TRAIN_COUNT, pa.array([known.get(i, 0) for i in ids]))
    items = items.append_column(schema.REMOVED, pa.array([False] * len(ids)))
    model, fields = ModelConfig(), PrepareConfig().text_fields
    encoder = QueryEncoder(load_text_encoder(model), load_tokenizer(model.backbone))
    vectors_NE = F.normalize(encoder.encode(item_texts(world.items, fields)), dim=1)
    catalogue = Catalogue(items)
    ranking = catalogue.ranking
    lexical = LexicalIndex.build(item_words(items, fields), ranking)
    with tempfile.TemporaryDirectory() as folder:
        write_world(world, folder)
        config = SearchConfig(queries=str(Path(folder) / "queries.parquet"))
        learned = learn(config, items, encoder, vectors_NE, lexical)
        queries = read_queries(config.queries, items).by_split
    stored = make_index(vectors_NE, PRECISION, ranking.order_N, ranking.removed_N)
    searcher = Searcher(lexical, DenseSearch(encoder, stored), learned.fusion, catalogue)
    return searcher, catalogue, queries


def _log(
    searcher: Searcher, queries: Sequence[JudgedQuery], requests: int, random: np.random.Generator
) -> list[ShownList]:
    """What shoppers clicked who look at a place by `EXAMINATION` and take what fits."""
    log = []
    found = searcher.candidates([SearchQuery(query.text) for query in queries])
    for query, candidates in zip(queries, found, strict=True):
        items = candidates.items[:DEEP]
        fit = dict(zip(query.items.tolist(), query.relevance.tolist(), strict=True))
        attraction = np.array([LEAST + (MOST - LEAST) * fit.get(i, 0.0) for i in items.tolist()])
        for _ in range(requests):
            noise = NOISE * random.gumbel(size=len(items))
            order = np.argsort(np.log(np.arange(1, len(items) + 1)) - noise)[:SHOWN]
            chance = EXAMINATION[: len(order)] * attraction[order]
            clicked = (random.random(len(order)) < chance).astype(np.int64)
            places = np.arange(1, len(order) + 1)
            log.append(ShownList(query.text, items[order], places, clicked))
    return [request for request in log if len(request.items)]


def _ndcg(searcher: Searcher, catalogue: Catalogue, queries: Sequence[JudgedQuery]) -> np.ndarray:
    """(Q,) NDCG@10 with the relevance as gain."""
    asked = [SearchQuery(query.text, top_k=100) for query in queries]
    ranked = rank_queries(searcher, catalogue, asked)
    return np.array([graded_ndcg(row, query) for row, query in zip(ranked, queries, strict=True)])


def _told(one: Fitted, seconds: float, alone: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    return {
        "ndcg@10": float(found.mean()),
        "against_search_alone": _ahead(alone, found),
        "fit_s": round(seconds, 1),
        **one.facts,
    }


def _calibration(
    searcher: Searcher, catalogue: Catalogue, one: Fitted, queries: Sequence[JudgedQuery]
) -> dict[str, float]:
    """Of the probabilities of test candidates, and of saying the mean share for each of them."""
    lists = judged_lists(searcher, item_facts(catalogue), queries)
    fits = (lists.gains > 0).astype(np.float64)
    probabilities = one.ranker.calibration.of(one.ranker.trees.scores(lists.features))
    return {
        "of_ten_groups": calibration_error(probabilities, fits),
        "brier": float(((probabilities - fits) ** 2).mean()),
        "brier_of_the_mean": float(((fits.mean() - fits) ** 2).mean()),
        "share_that_fits": float(fits.mean()),
    }


def _milliseconds(searcher: Searcher, queries: Sequence[JudgedQuery]) -> float:
    """Median of one search after another."""
    asked = [SearchQuery(query.text) for query in queries[:100]]
    return float(np.median([_timed(lambda q=q: searcher.search([q]))[1] for q in asked]) * 1e3)


def _ahead(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """How far the second is ahead on the same queries."""
    [ahead] = paired_differences(first[:, None], second[:, None])
    return ahead.to_json()


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

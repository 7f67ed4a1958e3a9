"""Fits the final ranker to judged queries or to clicks, and writes it as an artifact.

Every list is what the searcher finds for a text, as it would be ranked, so nothing is learned of
items that serving would not hand over.

Shapes: R rows, Q lists, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import RankerConfig
from recsys.engine.recommender import Event, Recommender
from recsys.engine.search import Searcher, SearchQuery
from recsys.index.queries import JudgedQuery, queries_digest, read_queries
from recsys.ranker.calibration import fit_calibration
from recsys.ranker.click_model import PositionModel
from recsys.ranker.cross import CrossScorer
from recsys.ranker.features import FEATURES, Candidates, ItemFacts, make_features
from recsys.ranker.ranker import RANKED, FinalRanker
from recsys.ranker.shown import ShownList, fit_clicks, read_shown
from recsys.ranker.trees import Lists, fit_trees, listwise_loss

KIND = "ranker"
LEARNED_SHARE = 0.8
"""Of the requests of a log the first are learned from, the others choose."""
DEEPEST = 0.99
"""Of the items shown; a few stand deep because the catalogue has changed since."""
AT_ONCE = 64
"""Texts that the language model reads together."""


@dataclass(frozen=True)
class Fitted:
    """A ranker, and what is told of how it was fitted."""

    ranker: FinalRanker
    facts: dict[str, Any]


def judged_lists(
    searcher: Searcher,
    facts: ItemFacts,
    queries: Sequence[JudgedQuery],
    now: float = np.nan,
    cross: CrossScorer | None = None,
) -> Lists:
    """A list for each query that finds something; its gains sum to 1, or to 0 where nothing that
    was found fits."""
    parts = []
    asked = [SearchQuery(query.text) for query in queries]
    for query, found in zip(queries, _candidates(searcher, asked, cross), strict=True):
        if len(found.items):
            gains = _gains(query, found.items)
            parts.append((make_features(found, facts, now), gains / max(gains.sum(), 1e-12)))
    return _joined(parts)


def clicked_lists(
    searcher: Searcher,
    facts: ItemFacts,
    shown: Sequence[ShownList],
    model: PositionModel | None,
    now: float = np.nan,
    cross: CrossScorer | None = None,
) -> tuple[Lists, int]:
    """A list for each request, of the items shown that are found now, and down to which place of
    the search they reach.

    A click's gain is what the click model makes of its place, 1 without a model. Of the places at
    which the search now has what was shown, the share `DEEPEST` is within it.
    """
    keys = list(dict.fromkeys((request.query, request.history) for request in shown))
    asked = [SearchQuery(text, [*map(Event, history)], personal=1.0) for text, history in keys]
    found = dict(zip(keys, _candidates(searcher, asked, cross), strict=True))
    made = {key: make_features(one, facts, now) for key, one in found.items()}
    rows = {key: _row_of(one) for key, one in found.items()}
    parts, reached = [], [0]
    for request in shown:
        key = request.query, request.history
        row_of = rows[key]
        kept = np.array([item in row_of for item in request.items.tolist()])
        if kept.any():
            at = [row_of[item] for item in request.items[kept].tolist()]
            gains = request.clicked[kept].astype(np.float64)
            weights = 1.0 if model is None else model.weights(request.places[kept])
            parts.append((made[key][at], gains * weights))
            reached += at
    return _joined(parts), 1 + int(np.quantile(reached, DEEPEST, method="higher"))


def fit_ranker(
    train: Lists,
    valid: Lists,
    added_column: str = "",
    seed: int = 0,
    num_threads: int = 1,
    depth: int = RANKED,
    cross_model: str = "",
) -> Fitted:
    """The ranker with the least loss on `valid`, which also tells what its scores mean.

    Of judged queries a probability is that the item fits, of clicks that it is clicked at the first
    place. The first `depth` candidates are to be ranked.

    Raises:
        ValueError: there is nothing to learn from or to choose by.
    """
    trees = fit_trees(train, valid, FEATURES, seed, num_threads)
    scores = trees.scores(valid.features)
    fits = np.where(valid.gains > 0, np.maximum(valid.gains, 1.0), 0.0)
    ranker = FinalRanker(trees, fit_calibration(scores, fits), added_column, depth, cross_model)
    told = {
        "train_lists": len(train.sizes),
        "valid_lists": len(valid.sizes),
        "depth": depth,
        "trees": trees.num_trees,
        "valid_loss": listwise_loss(scores, valid),
        "features": {n: round(share, 4) for n, share in trees.gain_of().items() if share},
    }
    return Fitted(ranker, told)


def fit_ranker_artifact(
    config: RankerConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    index: Artifact,
    output: str,
    now: float,
) -> Artifact:
    """Write a `ranker` artifact for the index; `now` in Unix seconds is what ages are told from.

    Raises:
        ValueError: the index holds no search, or there is nothing to learn from or to choose by.
    """
    recommender = Recommender.load(checkpoint, index, filter_seen=False)
    searcher = Searcher.load(checkpoint, index, recommender)
    items = dataset.read_table("items.parquet")
    train, valid, depth, told = _lists(config, searcher, items, now)
    options = config.added_column, config.seed, config.num_threads, depth
    fitted = fit_ranker(train, valid, *options, config.cross_model)
    writer = ArtifactWriter(output, KIND)
    for name, content in fitted.ranker.files().items():
        writer.add_bytes(name, content)
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index}
    digests = {name: artifact.digest for name, artifact in parents.items()}
    source = queries_digest(config.queries or config.shown)
    # Where the source lies and how many threads there were is nothing of what the ranker is.
    kept = config.model_dump(mode="json", exclude={"queries", "shown", "num_threads"})
    return writer.publish({"ranker": kept}, digests | {"source": source}, {**fitted.facts, **told})


def _lists(
    config: RankerConfig, searcher: Searcher, items: pa.Table, now: float
) -> tuple[Lists, Lists, int, dict[str, Any]]:
    """Lists to learn from and to choose by, how deep to rank, and what is told of them."""
    facts = searcher.facts(config.added_column)
    cross = CrossScorer.load(config.cross_model) if config.cross_model else None
    if config.queries:
        judged = read_queries(config.queries, items)
        train, valid = (
            judged_lists(searcher, facts, judged.by_split[name], now, cross)
            for name in ("train", "valid")
        )
        return train, valid, RANKED, {"source": "queries", "rows": judged.rows}
    log = read_shown(config.shown, items)
    model = fit_clicks(log.lists)
    first = round(LEARNED_SHARE * len(log.lists))
    train, depth = clicked_lists(searcher, facts, log.lists[:first], model, now, cross)
    valid, _ = clicked_lists(searcher, facts, log.lists[first:], model, now, cross)
    places = dict(zip(map(str, model.places), model.examination.tolist(), strict=True))
    return train, valid, depth, {"source": "shown", "rows": log.rows, "examination": places}


def _candidates(
    searcher: Searcher, asked: Sequence[SearchQuery], cross: CrossScorer | None
) -> Iterator[Candidates]:
    for start in range(0, len(asked), AT_ONCE):
        yield from searcher.candidates(asked[start : start + AT_ONCE], cross)


def _gains(query: JudgedQuery, items: np.ndarray) -> np.ndarray:
    """(C,) the relevance of each candidate, 0 where it does not fit."""
    known = dict(zip(query.items.tolist(), query.relevance.tolist(), strict=True))
    return np.array([known.get(item, 0.0) for item in items.tolist()])


def _row_of(found: Candidates) -> dict[int, int]:
    return {item: row for row, item in enumerate(found.items.tolist())}


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Lists:
    if not parts:
        return Lists(np.empty((0, len(FEATURES)), np.float32), np.empty(0), np.empty(0, np.int64))
    features, gains = zip(*parts, strict=True)
    sizes = np.array([len(one) for one in gains])
    return Lists(np.concatenate(features), np.concatenate(gains), sizes)

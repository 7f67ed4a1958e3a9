"""What a search found, ordered once more by the final ranker.

Shapes: C candidates, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch

from recsys.artifact import Artifact
from recsys.engine.catalogue import Catalogue
from recsys.index.fusion import RRF_K
from recsys.index.item_columns import kind_of
from recsys.index.item_index import ItemIndex
from recsys.index.lexical import LexicalIndex
from recsys.ranker.cross import CrossScorer
from recsys.ranker.features import Candidates, ItemFacts
from recsys.ranker.ranker import RANKED, FinalRanker, load_ranker
from recsys.schema import Recommendation


@dataclass(frozen=True, slots=True)
class Found:
    """Item indexes by words, by meaning and by both, the last with scores; best first.

    `vector` (E,) is the query's, None where meaning does not count. `probabilities` are of the
    items that the final ranker has ordered.
    """

    words: list[int]
    meaning: list[int]
    items: list[int]
    scores: list[float]
    vector: torch.Tensor | None = None
    probabilities: dict[int, float] = field(default_factory=dict[int, float])

    def with_head(self, items: list[int], scores: list[float]) -> Found:
        """The first items in another order; what is below keeps its own, and lower scores."""
        tail = self.items[len(items) :]
        return replace(self, items=items + tail, scores=scores + scores_below(scores, len(tail)))


def scores_below(scores: Sequence[float], count: int) -> list[float]:
    """Falling scores for `count` items that stand below those of `scores`."""
    lowest = min(scores, default=0.0)
    return [lowest * RRF_K / (RRF_K + place) for place in range(1, count + 1)]


def candidates_of(
    text: str, found: Found, lexical: LexicalIndex, items: ItemIndex | None
) -> Candidates:
    """The best of what was found, with scores and places by words and by meaning."""
    best = torch.tensor(found.items[:RANKED], dtype=torch.int64)
    unknown = np.full(len(best), np.nan)
    meaning = unknown
    if found.vector is not None and items is not None:
        meaning = (items.vectors_of(best) @ found.vector).numpy()
    return Candidates(
        query=text,
        items=best.numpy(),
        words=lexical.scores(text)[best].numpy(),
        meaning=meaning,
        fused=np.array(found.scores[:RANKED]),
        words_place=_places(found.words, best),
        meaning_place=_places(found.meaning, best),
        sequence=unknown,
        cross=unknown,
    )


def with_sequence(
    found: Candidates, liked: Sequence[Recommendation], ids: np.ndarray
) -> Candidates:
    """The candidates, whose ids are (C,) `ids`, with what a history makes of them."""
    scores = {item.item_id: item.score for item in liked}
    return replace(found, sequence=np.array([scores.get(i, np.nan) for i in ids.tolist()]))


def with_cross(
    found: Candidates, cross: CrossScorer, catalogue: Catalogue, history: Sequence[str]
) -> Candidates:
    """The candidates with what a language model makes of their names after query and history, ids
    of items, oldest first."""
    known, _, _ = catalogue.find(list(history))
    titles = [catalogue.name(item) for item in found.items.tolist()]
    scores = cross.score(found.query, [catalogue.name(item) for item in known], titles)
    return replace(found, cross=scores.double().numpy())


def item_facts(catalogue: Catalogue, added_column: str = "") -> ItemFacts:
    """What the catalogue tells of its items.

    Raises:
        ValueError: the column of the time an item was added is none of the catalogue's numbers.
    """
    return ItemFacts(
        titles=catalogue.titles,
        train_counts=catalogue.train_counts.numpy(),
        prices=catalogue.prices,
        added=_added(catalogue, added_column),
        categories=catalogue.codes("category"),
        brands=catalogue.codes("brand"),
    )


def ranked(
    found: Found, candidates: Candidates, ranker: FinalRanker, facts: ItemFacts, now: float
) -> Found:
    """The first candidates in the ranker's order; a score is an item's share of their softmax."""
    scores, probabilities = ranker.rank(candidates, facts, now)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")
    items = candidates.items[: len(scores)].tolist()
    ordered = found.with_head([items[row] for row in order], shares[order].tolist())
    return replace(ordered, probabilities=dict(zip(items, probabilities.tolist(), strict=True)))


def ranker_of(artifact: Artifact, index: Artifact) -> FinalRanker:
    """The ranker of an artifact.

    Raises:
        ValueError: it was fitted to another index or to other features than are made now, or what
            it holds cannot be read.
    """
    fitted_to = artifact.manifest.parents.get("index")
    if fitted_to != index.digest:
        raise ValueError(
            f"{artifact.uri} was fitted to index {str(fitted_to)[:12]}, not to {index.uri} "
            f"({index.digest[:12]}): fit the ranker again"
        )
    try:
        return load_ranker(artifact.read_bytes)
    except (ValueError, KeyError) as error:
        raise ValueError(f"ranker {artifact.uri} cannot be used: {error}") from error


def _places(ranking: list[int], items: torch.Tensor) -> np.ndarray:
    """(C,) from 1, not a number for items that the ranking lacks."""
    places = {item: place for place, item in enumerate(ranking, start=1)}
    return np.array([places.get(item, np.nan) for item in items.tolist()])


def _added(catalogue: Catalogue, name: str) -> np.ndarray:
    if not name:
        return np.full(len(catalogue), np.nan)
    column = catalogue.columns.get(name)
    if column is None or kind_of(column.type) != "number":
        raise ValueError(f"items have no number column '{name}': the time they were added")
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)

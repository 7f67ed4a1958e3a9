"""What an index finds of what is there, and the least effort that finds enough.

Shapes: B queries, N items, D embedding size, K results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import IndexConfig
from recsys.data.collate import histories_of, read_rows
from recsys.index.approximate import (
    APPROXIMATE,
    Approximate,
    ApproximateIndex,
    build_graph,
    chosen_kind,
    effort_of,
    save_graph,
    set_effort,
)
from recsys.index.best_items import Excluded
from recsys.index.fit_transitions import encode_histories
from recsys.index.item_index import ExactIndex, ItemIndex, QuantisedIndex
from recsys.models.build import load_model

QUERIES = 512
"""Of 5,120 places in the first ten a recall of .95 has a standard error of .003, or somewhat more,
since those of one query go together."""
FIRST, MORE = 10, 100


def add_approximate(
    writer: ArtifactWriter,
    config: IndexConfig,
    exact: ExactIndex | QuantisedIndex,
    vectors_ND: torch.Tensor,
    dataset: Artifact,
    checkpoint: Artifact,
) -> dict[str, Any]:
    """Write what finds items without scoring all, if the config asks for it; how items are found,
    and what share of the best by the float32 vectors.

    Raises:
        ValueError: see `chosen_kind` and `build_approximate`.
    """
    kind = chosen_kind(config, len(vectors_ND))
    if kind is None and config.precision == "fp32":
        return {"kind": "exact"}
    sample = sample_queries(dataset, checkpoint, vectors_ND)
    right = ExactIndex(vectors_ND, exact.ranking.order_N, exact.ranking.removed_N)
    if kind is None:
        return {"kind": "exact"} | recall_facts(exact, right, sample)
    index, facts = build_approximate(exact, kind, config.target_recall, right, sample)
    writer.add_bytes(APPROXIMATE, save_graph(index.graph))
    return facts | recall_facts(index, right, sample)


@dataclass(frozen=True)
class Sample:
    """Queries (B, D) with the items each may not find, and what they are."""

    queries_BD: torch.Tensor
    excluded: Excluded
    source: str


def sample_queries(dataset: Artifact, checkpoint: Artifact, vectors_ND: torch.Tensor) -> Sample:
    """Users of the validation rows, who do not find what they had: that is near, and what is left
    is harder to find. The items themselves where there are no such users."""
    if dataset.names("valid/"):
        rows = read_rows(dataset, "valid").slice(0, QUERIES)
        histories = [history for history in histories_of(rows) if len(history)]
        if histories:
            model, shape = load_model(checkpoint, with_text=False)
            recent = [history.last(shape.max_history) for history in histories]
            users_BD = encode_histories(model, recent, vectors_ND)
            seen = [history.item_indexes.tolist() for history in histories]
            return Sample(users_BD, seen, "validation users")
    return item_queries(vectors_ND)


def item_queries(vectors_ND: torch.Tensor) -> Sample:
    """Items spread over the catalogue, which do not find themselves."""
    step = max(1, len(vectors_ND) // QUERIES)
    items = torch.arange(0, len(vectors_ND), step)[:QUERIES]
    return Sample(vectors_ND[items], [[item] for item in items.tolist()], "items")


def recall_facts(index: ItemIndex, right: ItemIndex, sample: Sample) -> dict[str, Any]:
    """The share of the first 10 and 100 items of `right` that `index` finds among as many."""
    _, items_BK = right.search(sample.queries_BD, MORE, sample.excluded)
    named = {f"recall@{k}": round(_recall(index, items_BK, sample, k), 4) for k in (FIRST, MORE)}
    return named | {"recall_queries": len(sample.queries_BD), "recall_measured_on": sample.source}


def _recall(index: ItemIndex, right_BK: torch.Tensor, sample: Sample, top_k: int) -> float:
    scores_BK, items_BK = index.search(sample.queries_BD, top_k, sample.excluded)
    items_BK = items_BK.where(scores_BK > -torch.inf, -1)
    wanted_BK = right_BK[:, :top_k]
    return (wanted_BK[:, :, None] == items_BK[:, None, :]).any(2).float().mean().item()


def build_approximate(
    exact: ExactIndex | QuantisedIndex,
    kind: Approximate,
    target_recall: float,
    right: ExactIndex,
    sample: Sample,
) -> tuple[ApproximateIndex, dict[str, Any]]:
    """The index with the least effort that has `target_recall` of the first ten, and its facts.

    Raises:
        ValueError: no effort has it.
    """
    index = ApproximateIndex(exact, build_graph(exact, kind))
    _, right_BK = right.search(sample.queries_BD, FIRST, sample.excluded)
    reached = 0.0
    for effort in _efforts(index.graph, kind):
        set_effort(index.graph, effort)
        reached = _recall(index, right_BK, sample, FIRST)
        if reached >= target_recall:
            name = "nprobe" if kind == "ivf" else "efSearch"
            return index, {"kind": kind, name: effort_of(index.graph)}
    raise ValueError(
        f"'{kind}' finds {reached:.3f} of the first {FIRST} items and index.target_recall is "
        f"{target_recall}: ask for less, or set index.kind to 'exact' or index.precision to 'fp32'"
    )


def _efforts(graph: Any, kind: Approximate) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12 ... lists up to all; 16, 24, 32 ... 2,048 candidates."""
    low, high = (1, graph.nlist) if kind == "ivf" else (16, 2_048)
    while low < high:
        yield low
        if low > 1 and low * 3 // 2 < high:
            yield low * 3 // 2
        low *= 2
    yield high

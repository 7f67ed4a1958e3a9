"""Items found without scoring all of them: FAISS names candidates, exact vectors score them.

Shapes: B queries, N items, P items that are not removed, C candidates, K results, D embedding size.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch

from recsys.artifact import Artifact
from recsys.config import IndexConfig
from recsys.index.best_items import Allowed, Excluded, Found, assembled, num_allowed, rows_by_mask
from recsys.index.item_index import (
    RESCORED,
    VECTORS,
    ExactIndex,
    QuantisedIndex,
    load_index,
    rescored,
)

APPROXIMATE = "approximate.faiss"
Approximate = Literal["ivf", "hnsw"]
DEPTH = 100
"""Results up to which the effort is that of the first ten; more results get as much more."""
LINKS = 16
"""HNSW's M: links of an item on each level, twice as many on the lowest."""
BUILD_EFFORT = 100
"""Candidates for an item's links when it is added (efConstruction)."""
TRAINED_PER_LIST = 64
PASSES = 10
FEW = 0.02
"""Share of the items up to which those that a filter leaves are scored without FAISS, and which may
be candidates. Of a million, 2% take 11 ms to score, and FAISS 7 to find ten of them."""


class ApproximateIndex:
    """An `ItemIndex` that scores `RESCORED` candidates for each result, and excluded ones beside.

    `graph` is FAISS's, over the items of `exact` that are not removed. What is excluded makes more
    candidates necessary, so none is lost. A filter holds while FAISS searches, with an effort
    over the square of the share it leaves: over the share alone is enough where the filter is by
    chance (recall@10 of .99), but not where it takes items that are alike (.81 to .85, squared .97
    to 1). Every item is scored instead where that is no dearer, and where FAISS finds fewer than
    were asked for.
    """

    def __init__(self, exact: ExactIndex | QuantisedIndex, graph: Any) -> None:
        self.exact = exact
        self.graph = graph
        self._size = len(exact.ranking.order_N)

    @property
    def vectors(self) -> torch.Tensor:
        """(N, D) float32 item vectors; see `ItemIndex`."""
        return self.exact.vectors

    def vectors_of(self, item_indexes: torch.Tensor) -> torch.Tensor:
        """(..., D) float32 vectors of items; see `ItemIndex`."""
        return self.exact.vectors_of(item_indexes)

    def search(
        self,
        queries_BD: torch.Tensor,
        top_k: int,
        excluded: Excluded,
        allowed: Allowed | None = None,
    ) -> Found:
        """Scores and item indexes, (B, K) each with K = min(top_k, N); see `ItemIndex`."""
        masks = allowed or [None] * len(excluded)
        top_k = min(top_k, self._size)
        parts: list[tuple[list[int], Found]] = []
        missed: list[int] = []
        for mask_N, rows in rows_by_mask(masks):
            bars = [excluded[row] for row in rows]
            found = self._approximate(queries_BD[rows], top_k, bars, mask_N)
            if found is None:
                missed += rows
                continue
            short_B = (found[0] == -torch.inf).any(1).tolist()
            missed += [row for row, short in zip(rows, short_B, strict=True) if short]
            parts.append((rows, found))
        if missed:
            bars, left = [excluded[row] for row in missed], [masks[row] for row in missed]
            parts.append((missed, self.exact.search(queries_BD[missed], top_k, bars, left)))
        return assembled(parts, (len(excluded), top_k), self._size)

    def _approximate(
        self, queries_BD: torch.Tensor, top_k: int, excluded: Excluded, mask_N: torch.Tensor | None
    ) -> Found | None:
        """None where every item is to be scored."""
        share = 1.0 if mask_N is None else num_allowed(mask_N) / self._size
        count = RESCORED * top_k + max(map(len, excluded))
        if count > FEW * self._size or share <= FEW:
            return None
        effort = math.ceil(effort_of(self.graph) * max(1.0, top_k / DEPTH) / share**2)
        if _kind_of(self.graph) == "hnsw" and effort > FEW * self._size:
            return None
        first_BC, items_BC = _candidates(self.graph, queries_BD, count, effort, mask_N)
        for first_C, items_C, items in zip(first_BC, items_BC, excluded, strict=True):
            barred_C = torch.isin(items_C, torch.tensor(items, dtype=torch.int64))
            first_C[barred_C | (items_C < 0)] = -torch.inf
        return rescored(self.exact, queries_BD, (first_BC, items_BC.clamp_min(0)), top_k)


def _candidates(
    graph: Any, queries_BD: torch.Tensor, count: int, effort: int, mask_N: torch.Tensor | None
) -> Found:
    """FAISS's scores and items, (B, C) each, -1 where it found fewer."""
    faiss = _faiss()
    chosen = {} if mask_N is None else {"sel": _selector(mask_N)}
    if _kind_of(graph) == "ivf":
        params = faiss.SearchParametersIVF(nprobe=min(effort, graph.nlist), **chosen)
    else:
        params = faiss.SearchParametersHNSW(efSearch=max(effort, count), **chosen)
    faiss.omp_set_num_threads(torch.get_num_threads())
    scores, items = graph.search(queries_BD.numpy(), count, params=params)
    return torch.from_numpy(scores), torch.from_numpy(items)


def _selector(mask_N: torch.Tensor) -> Any:
    return _faiss().IDSelectorBitmap(np.packbits(mask_N.numpy(), bitorder="little"))


def build_graph(exact: ExactIndex | QuantisedIndex, kind: Approximate) -> Any:
    """FAISS's index of the items that are not removed, their vectors in 8 bits a number.

    "ivf" puts items into 2 sqrt(N) lists by their nearest centre and looks into some of them;
    "hnsw" walks a graph of neighbours (Malkov & Yashunin, IEEE TPAMI 2020), which takes longer to
    build and has links in memory: 128 bytes an item and more.
    """
    faiss = _faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    items = (~exact.ranking.removed_N).nonzero()[:, 0]
    vectors_PD = exact.vectors_of(items).numpy()
    size, metric, bits = vectors_PD.shape[1], faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer
    if kind == "ivf":
        lists = max(1, min(int(2 * math.sqrt(len(items))), len(items) // TRAINED_PER_LIST))
        graph = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(size), size, lists, bits.QT_8bit, metric
        )
        graph.cp.niter, graph.cp.max_points_per_centroid = PASSES, TRAINED_PER_LIST
        graph.cp.spherical = True
    else:
        walked = faiss.IndexHNSWSQ(size, bits.QT_8bit, LINKS, metric)
        walked.hnsw.efConstruction = BUILD_EFFORT
        graph = faiss.IndexIDMap(walked)
    graph.train(vectors_PD)
    graph.add_with_ids(vectors_PD, items.numpy())
    return graph


def effort_of(graph: Any) -> int:
    """Lists (nprobe) or candidates (efSearch) that a search looks at."""
    if _kind_of(graph) == "ivf":
        return graph.nprobe
    return _faiss().downcast_index(graph.index).hnsw.efSearch


def set_effort(graph: Any, effort: int) -> None:
    """How many a search looks at from now on; `save_graph` keeps it."""
    if _kind_of(graph) == "ivf":
        graph.nprobe = effort
    else:
        _faiss().downcast_index(graph.index).hnsw.efSearch = effort


def _kind_of(graph: Any) -> Approximate:
    return "hnsw" if isinstance(graph, _faiss().IndexIDMap) else "ivf"


def save_graph(graph: Any) -> bytes:
    """As FAISS's own format."""
    return _faiss().serialize_index(graph).tobytes()


def load_graph(content: bytes) -> Any:
    """What `save_graph` wrote. FAISS trusts what it reads: compare the bytes with a digest first,
    as `Artifact.read_bytes` does."""
    return _faiss().deserialize_index(np.frombuffer(content, np.uint8))


def read_index(artifact: Artifact) -> ExactIndex | QuantisedIndex | ApproximateIndex:
    """The item index of an `index` artifact, approximate if it was built so.

    Raises:
        ValueError: a file is damaged, or faiss is not installed.
    """
    exact = load_index(artifact.read_bytes(VECTORS))
    if not artifact.names(APPROXIMATE):
        return exact
    return ApproximateIndex(exact, load_graph(artifact.read_bytes(APPROXIMATE)))


def chosen_kind(config: IndexConfig, num_items: int) -> Approximate | None:
    """How items are found: None where each is scored.

    Raises:
        ValueError: FAISS is needed and not installed.
    """
    if config.kind == "exact" or (config.kind == "auto" and num_items <= config.approximate_above):
        return None
    _faiss()
    return "ivf" if config.kind == "auto" else config.kind


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ModuleNotFoundError as missing:
        raise ValueError(
            "approximate search needs faiss: install recsys[ann], or set index.kind to 'exact'"
        ) from missing

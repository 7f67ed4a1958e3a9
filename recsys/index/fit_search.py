"""What queries teach: where their items are in the language model's space, and which ranking tells.

Shapes: Q queries, N items, E width of the language model, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from recsys.index.fusion import DEPTH, Fusion, adapted, fuse
from recsys.index.lexical import LexicalIndex
from recsys.index.queries import JudgedQuery
from recsys.metrics import NO_ITEM, ranking_metrics

WEIGHTS = tuple(step / 10 for step in range(11))
LEARNING_RATE, WEIGHT_DECAY = 3e-4, 0.1
TEMPERATURE = 0.05
BATCH = 256
NUM_NEGATIVES = 8_192
CUTOFF = 10
AT_ONCE = 64
"""Queries whose products with all items are in memory together."""
MAX_VALIDATION = 1_000
"""Queries that choose the settings."""


@dataclass(frozen=True)
class Learned:
    """A fusion, the passes after which it was best, and its NDCG@10 on the choosing queries: 0
    where there were none."""

    fusion: Fusion
    epochs: int
    valid_ndcg: float


def fit_fusion(
    train: tuple[Sequence[JudgedQuery], torch.Tensor],
    valid: tuple[Sequence[JudgedQuery], torch.Tensor],
    items_NE: torch.Tensor,
    lexical: LexicalIndex,
    epochs: int,
    seed: int = 0,
) -> Learned:
    """The adapter with the best NDCG@10 on `valid` at equal weights, and then the best weight; of
    equals the one with fewer passes, and the weight nearer to one half.

    Queries come with their vectors (Q, E); these and the items' are of length 1.
    """
    queries, vectors = valid[0][:MAX_VALIDATION], valid[1][:MAX_VALIDATION]
    if not queries:
        return Learned(Fusion(), 0, 0.0)
    words = [lexical.search(query.text, DEPTH)[1] for query in queries]
    best, meaning = Learned(Fusion(), 0, -1.0), words
    for epoch, adapter in enumerate(_adapters(*train, items_NE, epochs, seed)):
        fusion = Fusion(adapter=adapter)
        near = _nearest(fusion.adapt(vectors), items_NE)
        ndcg = _ndcg(queries, words, near, fusion.dense_weight)
        if ndcg > best.valid_ndcg:
            best, meaning = Learned(fusion, epoch, ndcg), near
    found = {weight: _ndcg(queries, words, meaning, weight) for weight in WEIGHTS}
    weight = max(found, key=lambda w: (found[w], -abs(w - 0.5)))
    return Learned(replace(best.fusion, dense_weight=weight), best.epochs, found[weight])


def _nearest(queries_QE: torch.Tensor, items_NE: torch.Tensor) -> list[torch.Tensor]:
    """For each query the `DEPTH` item indexes with the largest products, best first."""
    size = min(DEPTH, len(items_NE))
    found: list[torch.Tensor] = []
    for block_BE in queries_QE.split(AT_ONCE):
        found += (block_BE @ items_NE.T).topk(size).indices
    return found


def _ndcg(
    queries: Sequence[JudgedQuery],
    words: list[torch.Tensor],
    meaning: list[torch.Tensor],
    weight: float,
) -> float:
    ranked = np.full((len(queries), CUTOFF), NO_ITEM)
    for row, pair in enumerate(zip(words, meaning, strict=True)):
        items, scores = fuse(*pair, weight)
        best = items[scores.argsort(descending=True, stable=True)][:CUTOFF]
        ranked[row, : len(best)] = best.numpy()
    targets = [query.items for query in queries]
    return float(ranking_metrics(ranked, targets, [CUTOFF])[f"ndcg@{CUTOFF}"].mean())


def _adapters(
    queries: Sequence[JudgedQuery],
    vectors_QE: torch.Tensor,
    items_NE: torch.Tensor,
    epochs: int,
    seed: int,
) -> Iterator[torch.Tensor | None]:
    """None, and then an adapter after each pass.

    The loss is softmax cross-entropy of a query's items, at 1 / `TEMPERATURE`, among items that
    some query of these fits. The others are left out, for nobody judged them: among all items, and
    else the same, NDCG@10 by meaning is .141 in place of .143 (bundle intents, validation).
    """
    yield None
    if not queries:
        return
    shuffled = torch.Generator().manual_seed(seed)
    adapter_EE = torch.zeros(items_NE.shape[1], items_NE.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([adapter_EE], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    known = torch.from_numpy(np.unique(np.concatenate([query.items for query in queries])))
    for _ in range(epochs):
        for rows in torch.randperm(len(queries), generator=shuffled).split(BATCH):
            drawn = known[torch.randperm(len(known), generator=shuffled)[:NUM_NEGATIVES]]
            loss = _loss(
                [queries[r] for r in rows.tolist()], vectors_QE[rows], adapter_EE, drawn, items_NE
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield adapter_EE.detach().clone()


def _loss(
    queries: list[JudgedQuery],
    vectors_BE: torch.Tensor,
    adapter_EE: torch.Tensor,
    drawn: torch.Tensor,
    items_NE: torch.Tensor,
) -> torch.Tensor:
    """The mean over queries of the mean over their items, which are among the candidates."""
    own = torch.from_numpy(np.concatenate([query.items for query in queries]))
    rows = torch.arange(len(queries)).repeat_interleave(
        torch.tensor([len(query.items) for query in queries])
    )
    candidates_C = torch.cat([drawn, own]).unique()
    vectors_BE = F.normalize(adapted(vectors_BE, adapter_EE), dim=1)
    logits_BC = vectors_BE @ items_NE[candidates_C].T / TEMPERATURE
    log_shares = logits_BC.log_softmax(dim=1)[rows, torch.searchsorted(candidates_C, own)]
    return -(log_shares / rows.bincount()[rows]).sum() / len(queries)

"""Biased matrix factorisation with a bilinear form, for users it was not trained on.

Shapes: B histories, N items, D factors, M negatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from recsys.eval.baselines.histories import history_counts
from recsys.eval.baselines.sparse import Sparse, damped, rows_of
from recsys.schema import History

BATCH_SIZE = 512
NUM_NEGATIVES = 256
LEARNING_RATE = 0.05
MAX_STEPS = 20_000
"""Steps after which learning ends, whatever the epochs: about 10 million events."""


class BilinearFactors:
    """score = b_u + b_i + u' W v, with u the mean of the history's vectors, so new users have one.

    b_u is one number for all items: it changes no ranking and has no gradient in a ranking loss,
    so it is left at 0. Trained to tell each event from uniform negatives by sampled softmax, with
    the event itself taken out of the user's mean.
    """

    def __init__(
        self, counts: Sparse, num_factors: int = 64, epochs: int = 5, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._model = _Factors(counts.shape[1], num_factors, generator)
        # torch warns where nobody says whether sparse gradients are to be checked.
        with torch.sparse.check_sparse_tensor_invariants(False):
            _fit(self._model, damped(counts), epochs, generator)

    @torch.inference_mode()
    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """(B, N) scores, up to what is the same for all items of a history."""
        rows = damped(history_counts(histories, len(self._model.bias.weight)))
        users_BD = self._model.users(rows)
        return (users_BD @ self._model.items.weight.T + self._model.bias.weight[:, 0]).numpy()


class _Factors(nn.Module):
    def __init__(self, num_items: int, size: int, generator: torch.Generator) -> None:
        super().__init__()

        def drawn() -> torch.Tensor:
            return 0.1 * torch.randn(num_items, size, generator=generator)

        self.history = nn.EmbeddingBag.from_pretrained(
            drawn(), freeze=False, mode="sum", sparse=True
        )
        self.items = nn.Embedding.from_pretrained(drawn(), freeze=False, sparse=True)
        bias = torch.zeros(num_items, 1)
        self.bias = nn.Embedding.from_pretrained(bias, freeze=False, sparse=True)
        self.form = nn.Parameter(torch.eye(size))

    def users(self, rows: Sparse, without: np.ndarray | None = None) -> torch.Tensor:
        """(B, D) u' W of sparse rows; `without` (B,) is an item to take out of each."""
        owners, weights = rows_of(rows), rows.data
        if without is not None:
            weights = np.where(rows.indices == without[owners], 0, weights)
        totals = np.bincount(owners, weights, rows.shape[0])
        means = (weights / np.maximum(totals, 1)[owners]).astype(np.float32)
        bags = (torch.from_numpy(rows.indices), torch.from_numpy(rows.indptr[:-1]))
        return self.history(*bags, per_sample_weights=torch.from_numpy(means)) @ self.form


def _fit(model: _Factors, taken: Sparse, epochs: int, generator: torch.Generator) -> None:
    optimizer = torch.optim.Adagrad(model.parameters(), lr=LEARNING_RATE)
    users = rows_of(taken)
    for places in _batches(taken.nnz, epochs, generator):
        items = taken.indices[places]
        loss = _loss(model, taken[users[places]], items, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batches(num_events: int, epochs: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    """Places of the events of each step, shuffled anew each epoch."""
    step = 0
    for _ in range(epochs):
        for places in torch.randperm(num_events, generator=generator).split(BATCH_SIZE):
            if step == MAX_STEPS:
                return
            step += 1
            yield places.numpy()


def _loss(
    model: _Factors, rows: Sparse, items: np.ndarray, generator: torch.Generator
) -> torch.Tensor:
    """Sampled softmax; each of M uniform negatives stands for (N - 1) / M items."""
    num_items = len(model.bias.weight)
    users_BD = model.users(rows, without=items)
    targets_B = torch.from_numpy(items.astype(np.int64))
    drawn_M = torch.randint(num_items, (NUM_NEGATIVES,), generator=generator)
    right_B = (users_BD * model.items(targets_B)).sum(1) + model.bias(targets_B)[:, 0]
    wrong_BM = users_BD @ model.items(drawn_M).T + model.bias(drawn_M)[:, 0]
    wrong_BM = wrong_BM + math.log(max(1, num_items - 1) / NUM_NEGATIVES)
    wrong_BM = wrong_BM.masked_fill(drawn_M == targets_B[:, None], -torch.inf)
    logits = torch.cat([right_B[:, None], wrong_BM], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

"""How well a model's heads predict the values and the probabilities of held-out events.

Shapes: X predictions, B held-out rows, T their targets, L items a target (itself and negatives), N
items, D vector size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recsys.data.collate import collate_histories
from recsys.models.heads import NUM_NEGATIVES, Heads, ProbabilityHead, RatingHead
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import Batch, History

NUM_BINS = 15
TRUTH = "truth"
Scores = dict[str, float]
_Predictions = dict[str, np.ndarray]
"""(X,) what was true, and what each predictor said."""


@dataclass(frozen=True)
class HeldOutTargets:
    """Rows to predict: histories, the items that followed each, and their values where kept."""

    histories: Sequence[History]
    targets: Sequence[np.ndarray]
    values: Sequence[np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The targets of some rows, and what the model knows of the user of each.

    `rows_TL` begin with the target; `counts_TL` is False for a negative that is the target.
    """

    users_TD: torch.Tensor
    user_offsets_T: torch.Tensor
    values_T: torch.Tensor
    rows_TL: torch.Tensor
    counts_TL: torch.Tensor


def evaluate_heads(
    model: RecommenderModel,
    vectors_ND: torch.Tensor,
    held_out: HeldOutTargets,
    max_history: int,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, dict[str, Scores]]:
    """By head, by predictor its scores; without the heads that the model does not have.

    The predictors are the `model` and what it has to beat: for `rating` the mean of all values and
    that mean with the shrunk offsets of item and user, for `probability` the item's share of
    events. Row i of the vectors is item i of the model's training. Rows without history are left
    out. A probability is asked for each target and for `NUM_NEGATIVES` items beside it, drawn
    uniformly by `seed`; a draw that is the target is left out.
    """
    heads = model.heads
    if heads is None:
        return {}
    values: list[_Predictions] = []
    probabilities: list[_Predictions] = []
    with torch.inference_mode():
        for pairs in _batches(model, vectors_ND, held_out, max_history, batch_size, seed):
            if heads.rating is not None:
                values.append(_predict_values(heads.rating, vectors_ND, pairs))
            if heads.probability is not None:
                probabilities.append(_predict_probabilities(heads.probability, vectors_ND, pairs))
    judged = {
        "rating": _judge(values, rating_scores),
        "probability": _judge(probabilities, probability_scores),
    }
    return {head: scores for head, scores in judged.items() if scores}


def _batches(
    model: RecommenderModel,
    vectors_ND: torch.Tensor,
    held_out: HeldOutTargets,
    max_history: int,
    batch_size: int,
    seed: int,
) -> Iterator[_Pairs]:
    generator = torch.Generator().manual_seed(seed)
    chosen = [row for row, history in enumerate(held_out.histories) if len(history)]
    for start in range(0, len(chosen), batch_size):
        rows = chosen[start : start + batch_size]
        batch = collate_histories([held_out.histories[row] for row in rows], max_history)
        users_BD = model.encode_users(vectors_ND[batch.item_indexes], batch)
        offsets_B = _user_offsets(model.heads, batch, len(vectors_ND))
        targets = [held_out.targets[row] for row in rows]
        targets_T = torch.from_numpy(np.concatenate(targets).astype(np.int64))
        size = (len(targets_T), NUM_NEGATIVES)
        negatives_TK = torch.randint(len(vectors_ND), size, generator=generator)
        counts_TL = torch.ones(len(targets_T), 1 + NUM_NEGATIVES, dtype=torch.bool)
        counts_TL[:, 1:] = negatives_TK != targets_T[:, None]
        user_T = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(t) for t in targets]))
        yield _Pairs(
            users_TD=users_BD[user_T],
            user_offsets_T=offsets_B[user_T],
            values_T=_values(held_out, rows, len(targets_T)),
            rows_TL=torch.cat([targets_T[:, None], negatives_TK], dim=1),
            counts_TL=counts_TL,
        )


def _user_offsets(heads: Heads | None, batch: Batch, num_items: int) -> torch.Tensor:
    """(B,) offset of each user by all values of the history."""
    if heads is None or heads.rating is None:
        return torch.zeros(len(batch.lengths))
    offsets_BH = heads.rating.user_offsets(batch, torch.arange(num_items))
    return offsets_BH.gather(1, batch.lengths[:, None] - 1)[:, 0]


def _values(held_out: HeldOutTargets, rows: list[int], num_targets: int) -> torch.Tensor:
    if held_out.values is None:
        return torch.full((num_targets,), torch.nan)
    return torch.from_numpy(np.concatenate([held_out.values[row] for row in rows])).float()


def _predict_values(head: RatingHead, vectors_ND: torch.Tensor, pairs: _Pairs) -> _Predictions:
    known_T = ~pairs.values_T.isnan()
    items_X, offsets_X = pairs.rows_TL[known_T, 0], pairs.user_offsets_T[known_T]
    predicted_X = head(pairs.users_TD[known_T], vectors_ND[items_X], items_X, offsets_X)
    return {
        TRUTH: pairs.values_T[known_T].numpy(),
        "model": predicted_X.numpy(),
        "mean": head.mean.expand(len(items_X)).numpy(),
        "user_item_bias": head.baseline(head.item_offset(items_X), offsets_X).numpy(),
    }


def _predict_probabilities(
    head: ProbabilityHead, vectors_ND: torch.Tensor, pairs: _Pairs
) -> _Predictions:
    logits_TL = head(pairs.users_TD[:, None], vectors_ND[pairs.rows_TL], pairs.rows_TL)
    # An item is the target with probability p; else it is drawn NUM_NEGATIVES / N times.
    shares_TL = head.shares(pairs.rows_TL)
    popular_TL = (shares_TL.logit() + math.log(len(vectors_ND) / NUM_NEGATIVES)).sigmoid()
    truth_TL = torch.zeros_like(logits_TL)
    truth_TL[:, 0] = 1
    columns = {
        TRUTH: truth_TL,
        "model": head.probabilities(logits_TL),
        "popularity": popular_TL,
    }
    return {name: column[pairs.counts_TL].numpy() for name, column in columns.items()}


def _judge(
    parts: list[_Predictions], scores: Callable[[np.ndarray, np.ndarray], Scores]
) -> dict[str, Scores]:
    """Scores of each predictor; {} where nothing was predicted."""
    columns = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    )
    truth_X = columns.pop(TRUTH, np.empty(0))
    if not len(truth_X):
        return {}
    return {name: scores(truth_X, predicted_X) for name, predicted_X in columns.items()}


def rating_scores(truth_X: np.ndarray, predicted_X: np.ndarray) -> Scores:
    """Errors in the values' own unit, `mse` in its square."""
    errors_X = predicted_X.astype(np.float64) - truth_X
    mse = float(np.square(errors_X).mean())
    return {
        "mae": float(np.abs(errors_X).mean()),
        "rmse": math.sqrt(mse),
        "mse": mse,
        "predictions": len(truth_X),
    }


def probability_scores(truth_X: np.ndarray, predicted_X: np.ndarray) -> Scores:
    """How well probabilities tell ones from zeros (`auc`), and whether they mean what they say."""
    # Only checkpoints with heads need scikit-learn, which the extra `eval` has.
    from sklearn.metrics import log_loss, roc_auc_score

    predicted_X = predicted_X.astype(np.float64)
    return {
        "auc": float(roc_auc_score(truth_X, predicted_X)),
        "log_loss": float(log_loss(truth_X, predicted_X)),
        "brier": float(np.square(predicted_X - truth_X).mean()),
        "ece": expected_calibration_error(truth_X, predicted_X),
        "predictions": len(truth_X),
    }


def expected_calibration_error(
    truth_X: np.ndarray, predicted_X: np.ndarray, num_bins: int = NUM_BINS
) -> float:
    """Mean distance, over bins, between the mean probability and the share of ones.

    Bins hold equally many predictions (ECE with equal mass, Roelofs et al. 2022,
    arXiv 2012.08668); equal ones share a bin, so that the order of rows does not matter.
    """
    order = np.argsort(predicted_X, kind="stable")
    sorted_X = predicted_X[order]
    bins_X = np.searchsorted(sorted_X, sorted_X) * num_bins // len(sorted_X)
    gaps = np.bincount(bins_X, sorted_X - truth_X[order])
    return float(np.abs(gaps).sum() / len(sorted_X))

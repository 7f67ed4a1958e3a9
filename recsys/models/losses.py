"""Softmax over cosine similarities, and where the target stands among the candidates.

Shapes: P predicted positions, C candidates, D embedding size, B users, K items of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from recsys.schema import NO_TARGET


@dataclass(frozen=True, slots=True)
class OwnItems:
    """Candidates that are no negatives for a user's positions, since the user took them too.

    `rows_BK` are rows of the candidates, `NO_TARGET` where a user has fewer; `user_P` says whose
    position it is. A position's own target always counts.
    """

    rows_BK: torch.Tensor
    user_P: torch.Tensor


def softmax_loss(
    users_PD: torch.Tensor,
    items_CD: torch.Tensor,
    targets_P: torch.Tensor,
    temperature: float | torch.Tensor,
    log_q_C: torch.Tensor | None = None,
    weights_P: torch.Tensor | None = None,
    own: OwnItems | None = None,
    chunk: int = 0,
) -> torch.Tensor:
    """Mean cross entropy of each position's target among all candidates; 0 where P is 0.

    Vectors have length 1. With `log_q_C` the candidates are a sample, and each logit is lowered
    by its candidate's log probability of being drawn (logQ correction). With `weights_P` it is the
    weighted mean, and 0 where no position has a weight above 0. With a `chunk` no more than so many
    positions' logits exist at once, and backward computes them again; 0 is all of them.
    """

    def entropies(some: slice) -> torch.Tensor:
        logits_PC = users_PD[some] @ items_CD.T / temperature
        if log_q_C is not None:
            logits_PC = logits_PC - log_q_C
        if own is not None:
            logits_PC = _without(logits_PC, own.rows_BK[own.user_P[some]], targets_P[some])
        return F.cross_entropy(logits_PC, targets_P[some], reduction="none")

    entropies_P = _by_chunks(entropies, len(targets_P), chunk)
    if weights_P is None:
        return entropies_P.sum() / max(1, len(targets_P))
    total = (weights_P * entropies_P).sum()
    return total / weights_P.sum().clamp_min(torch.finfo(weights_P.dtype).tiny)


def _by_chunks(
    compute: Callable[[slice], torch.Tensor], num_positions: int, chunk: int
) -> torch.Tensor:
    if not 0 < chunk < num_positions:
        return compute(slice(None))
    parts = [
        checkpoint(
            compute, slice(start, start + chunk), use_reentrant=False, preserve_rng_state=False
        )
        for start in range(0, num_positions, chunk)
    ]
    return torch.cat(parts)


def _without(
    logits_PC: torch.Tensor, own_PK: torch.Tensor, targets_P: torch.Tensor
) -> torch.Tensor:
    """The logits, changed in place: minus infinity for own items other than the target."""
    targets_P1 = targets_P[:, None]
    kept_P = logits_PC[torch.arange(len(targets_P), device=targets_P.device), targets_P]
    out_PK = torch.where(own_PK == NO_TARGET, targets_P1, own_PK)
    return logits_PC.scatter_(1, out_PK, -torch.inf).scatter_(1, targets_P1, kept_P[:, None])


def split_loss(
    users_PD: torch.Tensor,
    items_CD: torch.Tensor,
    targets_P: torch.Tensor,
    temperature: float | torch.Tensor,
    log_q_C: torch.Tensor | None,
    weights_P: torch.Tensor | None,
    num_parts: int,
    own: OwnItems | None = None,
    chunk: int = 0,
) -> torch.Tensor:
    """Sum of the `softmax_loss` of each of the parts that vectors consist of, by direction alone.

    A loss of their joint score would let the part that learns the training data by heart take
    over: on Industrial it took the text's own validation NDCG@10 from .112 to .091.
    """
    parts = zip(users_PD.chunk(num_parts, dim=-1), items_CD.chunk(num_parts, dim=-1), strict=True)
    unit = [(F.normalize(users, dim=-1), F.normalize(items, dim=-1)) for users, items in parts]
    told = (targets_P, temperature, log_q_C, weights_P, own, chunk)
    return torch.stack([softmax_loss(users, items, *told) for users, items in unit]).sum()


def target_ranks(
    users_PD: torch.Tensor, items_CD: torch.Tensor, targets_P: torch.Tensor
) -> torch.Tensor:
    """(P,) number of candidates that score above the target; 0 is the best."""
    scores_PC = users_PD @ items_CD.T
    own_P1 = scores_PC.gather(1, targets_P[:, None])
    return (scores_PC > own_P1).sum(1)

"""Softmax over cosine similarities, and where the target stands among the candidates.

Shapes: P predicted positions, C candidates, D embedding size, B users, K items of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

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
    positions' logits exist at once; 0 is all of them.
    """
    if weights_P is None:
        shares_P = users_PD.new_full((len(targets_P),), 1 / max(1, len(targets_P)))
    else:
        shares_P = weights_P / weights_P.sum().clamp_min(torch.finfo(weights_P.dtype).tiny)
    temperature = torch.as_tensor(temperature, device=users_PD.device)
    task = _Task(targets_P, shares_P, log_q_C, own)
    if 0 < chunk < len(targets_P):
        return _ChunkedLoss.apply(users_PD, items_CD, temperature, task, chunk)  # pyright: ignore
    logits_PC = _logits(users_PD, items_CD, temperature, task, slice(None))
    return (shares_P * F.cross_entropy(logits_PC, targets_P, reduction="none")).sum()


@dataclass(frozen=True, slots=True)
class _Task:
    """What the vectors are scored for; `shares_P` are the positions' shares of the mean."""

    targets_P: torch.Tensor
    shares_P: torch.Tensor
    log_q_C: torch.Tensor | None
    own: OwnItems | None


def _logits(
    users_PD: torch.Tensor,
    items_CD: torch.Tensor,
    temperature: torch.Tensor,
    task: _Task,
    some: slice,
) -> torch.Tensor:
    """Those of some positions; divided before the product, which is one copy of them less."""
    logits_PC = (users_PD[some] / temperature) @ items_CD.T
    if task.log_q_C is not None:
        logits_PC -= task.log_q_C
    if task.own is not None:
        own_PK = task.own.rows_BK[task.own.user_P[some]]
        logits_PC = _without(logits_PC, own_PK, task.targets_P[some])
    return logits_PC


class _ChunkedLoss(torch.autograd.Function):
    """The loss chunk by chunk, each chunk's gradient made while its logits are there.

    So nothing is computed twice (after the fused loss of Liger Kernel, Hsu et al. 2024,
    arXiv 2410.10989). The loss is a scalar: backward only scales what is kept, which is as large as
    the vectors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users_PD: torch.Tensor,
        items_CD: torch.Tensor,
        temperature: torch.Tensor,
        task: _Task,
        chunk: int,
    ) -> torch.Tensor:
        loss, learns = users_PD.new_zeros(()), any(ctx.needs_input_grad)  # validation does not
        by_users_PD, by_items_CD = torch.zeros_like(users_PD), torch.zeros_like(items_CD)
        for start in range(0, len(users_PD), chunk):
            some = slice(start, start + chunk)
            logits_PC = _logits(users_PD, items_CD, temperature, task, some)
            loss += _loss_into_gradient(logits_PC, task.targets_P[some], task.shares_P[some])
            if learns:
                by_users_PD[some] = logits_PC @ items_CD / temperature
                by_items_CD.addmm_(logits_PC.T, users_PD[some] / temperature)
        # Each logit but for constants is proportional to 1 / temperature and to its user's vector.
        by_temperature = -(by_users_PD * users_PD).sum() / temperature
        ctx.save_for_backward(by_users_PD, by_items_CD, by_temperature)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_users_PD, by_items_CD, by_temperature = ctx.saved_tensors
        (grad,) = grads
        return by_users_PD * grad, by_items_CD * grad, by_temperature * grad, None, None


def _loss_into_gradient(
    logits_PC: torch.Tensor, targets_P: torch.Tensor, shares_P: torch.Tensor
) -> torch.Tensor:
    """The positions' part of the loss; in place the logits become its gradient by them."""
    targets_P1 = targets_P[:, None]
    totals_P1 = logits_PC.logsumexp(-1, keepdim=True)
    loss = (shares_P[:, None] * (totals_P1 - logits_PC.gather(1, targets_P1))).sum()
    logits_PC.sub_(totals_P1).exp_()
    logits_PC[torch.arange(len(targets_P), device=targets_P.device), targets_P] -= 1
    logits_PC.mul_(shares_P[:, None])
    return loss


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

"""Softmax over cosine similarities, and where the target stands among the candidates.

Shapes: P predicted positions, C candidates, D embedding size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def softmax_loss(
    users_PD: torch.Tensor,
    items_CD: torch.Tensor,
    targets_P: torch.Tensor,
    temperature: float,
    log_q_C: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross entropy of each position's target among all candidates; 0 where P is 0.

    Vectors have length 1. With `log_q_C` the candidates are a sample, and each logit is lowered
    by its candidate's log probability of being drawn (logQ correction).
    """
    logits_PC = users_PD @ items_CD.T / temperature
    if log_q_C is not None:
        logits_PC = logits_PC - log_q_C
    total = F.cross_entropy(logits_PC, targets_P, reduction="sum")
    return total / max(1, len(targets_P))


def target_ranks(
    users_PD: torch.Tensor, items_CD: torch.Tensor, targets_P: torch.Tensor
) -> torch.Tensor:
    """(P,) number of candidates that score above the target; 0 is the best."""
    scores_PC = users_PD @ items_CD.T
    own_P1 = scores_PC.gather(1, targets_P[:, None])
    return (scores_PC > own_P1).sum(1)

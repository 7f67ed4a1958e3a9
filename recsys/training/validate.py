"""How good a model is between two epochs, and the few numbers that only held-out rows can set.

Shapes: P positions with a target, C candidates, D embedding size.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F

from recsys.data.collate import collate_held_out
from recsys.models.heads import Predicted, ProbabilityHead, RatingHead, fit_calibration, labelled
from recsys.models.losses import target_ranks
from recsys.models.user_encoder import HybridUserEncoder, weigh_halves
from recsys.schema import Batch
from recsys.training.ranks import gather
from recsys.training.run import Run
from recsys.training.step import Scored, predict, score, sequence_loss

ID_SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""What validation tries as a user vector's `id_share` in a hybrid model."""


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Loss and NDCG@10 of the validation rows among the step's kind of candidates.

    A hybrid model is left with the share of IDs that does best, and a probability head calibrated.
    """
    rows, size = run.validation, run.job.training.global_batch_size
    if not rows.histories:
        return {}
    run.engine.eval()
    user_encoder = run.model.user_encoder
    shares = ID_SHARES if isinstance(user_encoder, HybridUserEncoder) else (None,)
    sums = torch.zeros(2 + len(shares), dtype=torch.float64)
    said: list[Predicted] = []
    for start in range(0, len(rows.histories) // run.world_size, size):
        scored = score(run, _held_out(run, start, size), start)
        count = len(scored.targets_P)
        loss = sequence_loss(run, scored, weighted=False).item() * count
        gains = [_gain(scored, share) for share in shares]
        sums += torch.tensor([count, loss, *gains], dtype=torch.float64)
        if (predicted := predict(run, scored)) is not None:
            said.append(predicted)
    loss, *gains = _means(run, sums)
    best = int(np.argmax(gains))
    if isinstance(user_encoder, HybridUserEncoder):
        user_encoder.id_share.fill_(ID_SHARES[best])
    return {"valid_loss": loss, "valid_ndcg@10": gains[best], **_judge_heads(run, said)}


def _held_out(run: Run, start: int, size: int) -> Batch:
    """This rank's share of the rows, from its row `start` on."""
    rows, world = run.validation, run.world_size
    mine = slice(run.rank + start * world, run.rank + (start + size) * world, world)
    values = None if rows.values is None else rows.values[mine]
    return collate_held_out(
        rows.histories[mine], rows.targets[mine], run.job.shape.max_history, values
    )


def _gain(scored: Scored, share: float | None) -> float:
    """Sum of the NDCG@10 of all rows, for a hybrid model at this share of IDs."""
    users_PD = scored.users_PD if share is None else weigh_halves(scored.users_PD, share)
    ranks_P = target_ranks(users_PD, scored.items_CD, scored.targets_P).cpu().double()
    return torch.where(ranks_P < 10, 1 / torch.log2(ranks_P + 2), 0.0).sum().item()


def _means(run: Run, sums: torch.Tensor) -> list[float]:
    """Of sums over rows, the first of which counts them, the means over all ranks' rows."""
    moved = sums.to(run.engine.device)
    torch.distributed.all_reduce(moved)
    count, *totals = moved.cpu().tolist()
    return [total / count for total in totals]


def _judge_heads(run: Run, said: list[Predicted]) -> dict[str, float]:
    found: dict[str, float] = {}
    heads = run.model.heads
    if heads is not None and heads.rating is not None:
        found |= _judge_rating(run, heads.rating, said)
    if heads is not None and heads.probability is not None:
        found |= _calibrate(run, heads.probability, said)
    return found


def _judge_rating(run: Run, head: RatingHead, said: list[Predicted]) -> dict[str, float]:
    """Root mean squared error over all ranks' rows with a known value, if there are any."""
    mine = [predicted.errors_P for predicted in said if predicted.errors_P is not None]
    errors_X = gather(torch.cat(mine), run.engine.device).double()
    if not len(errors_X):
        return {}
    return {"valid_rmse": (errors_X.square().mean().sqrt() * head.scale.cpu()).item()}


def _calibrate(run: Run, head: ProbabilityHead, said: list[Predicted]) -> dict[str, float]:
    """Calibrate on all ranks' rows; the log loss is that of the calibrated probabilities."""
    pairs = [labelled(predicted) for predicted in said]
    logits_X, labels_X = (
        gather(torch.cat(column), run.engine.device) for column in zip(*pairs, strict=True)
    )
    head.calibration.copy_(fit_calibration(logits_X, labels_X))
    log_loss = F.binary_cross_entropy(head.probabilities(logits_X), labels_X)
    return {"valid_log_loss": log_loss.item()}

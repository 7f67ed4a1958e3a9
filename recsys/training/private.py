"""A step of differentially private training: each user's own gradient, clipped; the sum, noised.

Gradients are torch.func's (its tutorial "Per-sample-gradients"), as Opacus' hooks want a batch of
examples in every layer, and the item encoder has one of items, which all users share. Opacus'
optimizer clips, sums and adds noise (Abadi et al. 2016, arXiv 1607.00133).

Shapes: U users of a part, H positions, C items, D embedding size.
"""

from __future__ import annotations

import secrets
from dataclasses import fields

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from recsys.models.candidates import whole_catalogue
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import softmax_loss
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import NO_TARGET, Batch
from recsys.training.anomaly import Watch
from recsys.training.guarantee import opacus
from recsys.training.poisson import secret_generator
from recsys.training.progress import Journal
from recsys.training.run import Run
from recsys.training.speed import work_of
from recsys.training.step import mean_over_ranks, move, split


class UserLoss(nn.Module):
    """The loss of one user's window among all items; no other user has a part in it."""

    def __init__(self, model: RecommenderModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, row: Batch, inputs: ItemInputs) -> torch.Tensor:
        """Weighted mean over the window's targets; 0 without any. The row's columns are (H,)."""
        batch = Batch(*(None if c is None else c[None] for c in _columns(row)))  # pyright: ignore
        items_CD = self.model.encode_items(inputs)
        users_HD = self.model.user_encoder(items_CD[batch.item_indexes], batch)[0]
        weights_H = (row.targets != NO_TARGET).float()
        if row.weights is not None:
            weights_H = weights_H * row.weights
        targets_H = row.targets.clamp_min(0)
        temperature = self.model.temperature()
        return softmax_loss(users_HD, items_CD, targets_H, temperature, None, weights_H)


def user_gradients(
    loss: UserLoss, batch: Batch, inputs: ItemInputs
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Each user's gradient of each weight, (U, *shape) by the weight's name, and losses (U,).

    A number that is not finite is 0: it would spoil the sum and tell of the user.
    """
    weights = {name: weight.detach() for name, weight in loss.named_parameters()}
    columns = [column for column in _columns(batch) if column is not None]
    told = [field.name for field in fields(Batch) if getattr(batch, field.name) is not None]

    def of_one(weights: dict[str, torch.Tensor], *row: torch.Tensor) -> torch.Tensor:
        return functional_call(loss, weights, (Batch(**dict(zip(told, row, strict=True))), inputs))

    rows = (None, *[0] * len(columns))
    # Of the kernels of attention vmap takes the plain one alone.
    with sdpa_kernel(SDPBackend.MATH):
        found = vmap(grad_and_value(of_one), in_dims=rows, randomness="different")
        gradients, losses_U = found(weights, *columns)
    return {name: g.nan_to_num(0.0, 0.0, 0.0) for name, g in gradients.items()}, losses_U


def _columns(batch: Batch) -> list[torch.Tensor | None]:
    return [getattr(batch, field.name) for field in fields(Batch)]


class PrivateStep:
    """In place of `recsys.training.loop.train_step`, for a run whose batches are drawn users.

    Opacus leaves the noised gradient where DeepSpeed finds its own, and that makes the step.
    Dropout and noise come from the operating system's entropy: who could draw the noise again would
    take it off.
    """

    def __init__(self, run: Run) -> None:
        privacy = run.job.training.privacy
        self._loss = UserLoss(run.model)
        self._optimizer = opacus("optimizers").DPOptimizer(
            run.engine.optimizer,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.max_user_norm,
            # The mean over the users expected: their true number would tell of a user.
            expected_batch_size=run.job.training.global_batch_size,
            generator=secret_generator(run.engine.device),
            secure_mode=True,  # against reading the noise off its last bits, arXiv 2112.05307
        )

    def __call__(
        self, run: Run, batch: Batch, step: int, watch: Watch, journal: Journal
    ) -> torch.Tensor:
        """One step; returns the users' mean loss, on the device. It is always applied: to leave one
        out for what its users did to it would tell of them."""
        torch.manual_seed(secrets.randbits(63))
        run.engine.train()
        parts = split(batch, run.job.training.accumulation)
        found = [self._learn(run, part, journal, last=part is parts[-1]) for part in parts]
        losses, counts = zip(*found, strict=True)
        return mean_over_ranks(list(losses), list(counts))

    def _learn(
        self, run: Run, part: Batch, journal: Journal, last: bool
    ) -> tuple[torch.Tensor, float]:
        """Add a part's users to the step, and with the `last` make it: mean loss, and users."""
        everything = whole_catalogue(run.job.shape.num_items)
        work = work_of(part, everything, 0)
        journal.encoded(work)
        inputs = run.items.of(everything.item_indexes)
        gradients, losses_U = user_gradients(self._loss, move(part, run.engine.device), inputs)
        for name, weight in self._loss.named_parameters():
            weight.grad_sample = gradients[name]  # pyright: ignore
        self._optimizer.clip_and_accumulate()
        journal.lap("backward")
        if last:
            self._optimizer.add_noise()
            self._optimizer.scale_grad()
        run.engine.step()
        self._forget(last)
        journal.lap("optimizer")
        return losses_U.detach().sum() / max(1, work.windows), float(work.windows)

    def _forget(self, last: bool) -> None:
        """Drop the part's gradients, and after the `last` their sum."""
        for weight in self._loss.parameters():
            weight.grad_sample = None  # pyright: ignore
            if last:
                weight.summed_grad = None  # pyright: ignore

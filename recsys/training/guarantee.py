"""What a private run promises: reckoned before it starts, and told by what it makes.

A step is a Gaussian mechanism on users drawn by Poisson sampling. Its accountant is Opacus' of
Renyi differential privacy (Mironov et al. 2019, arXiv 1908.10530), whose epsilon is an upper bound.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import importlib
import math
import warnings
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from recsys import schema
from recsys.artifact import Artifact
from recsys.config import ModelConfig, TrainingConfig

PRIVACY = "privacy"
"""Name of the guarantee among a checkpoint's facts."""
LARGE_ORDERS = (64, 96, 128, 256, 512, 1024)
"""Orders of Renyi divergence beside Opacus' own, for small epsilons."""
PRIVATE_ENCODERS = ("transformer", "hstu")
"""User encoders whose gradient torch.func.vmap takes for each user; it has no rule for a GRU."""


class Guarantee(BaseModel):
    """(epsilon, delta)-differential privacy of a checkpoint's weights.

    Two datasets are neighbours if one has all of one user's training events and the other none of
    them. `sample_rate` is the probability of a user to be in a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    epsilon: float
    delta: float
    unit: Literal["user"] = "user"
    users: int
    sample_rate: float
    steps: int
    noise_multiplier: float
    max_user_norm: float
    accountant: Literal["rdp"] = "rdp"


def opacus(module: str) -> Any:
    """A module of Opacus, loaded only now: it is an extra.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(f"opacus.{module}")
    except ImportError as error:
        raise ValueError("training.privacy needs opacus: install recsys[privacy]") from error


def guarantee(training: TrainingConfig, users: int) -> Guarantee:
    """What all steps of a run on so many users promise together.

    Raises:
        ValueError: a step has more users than there are, or delta or the noise promises nothing.
    """
    privacy = training.privacy
    if not 0 < training.global_batch_size <= users:
        raise ValueError(
            f"training.global_batch_size {training.global_batch_size} is the number of users a "
            f"step, and {users} users have training events: lower it"
        )
    if privacy.delta * users >= 1:
        raise ValueError(
            f"training.privacy.delta {privacy.delta:g} would allow one of {users} users to be "
            f"published as a whole: set it below {1 / users:g}"
        )
    rate = training.global_batch_size / users
    steps = training.epochs * steps_an_epoch(training, users)
    return Guarantee(
        epsilon=epsilon(privacy.noise_multiplier, rate, steps, privacy.delta),
        delta=privacy.delta,
        users=users,
        sample_rate=rate,
        steps=steps,
        noise_multiplier=privacy.noise_multiplier,
        max_user_norm=privacy.max_user_norm,
    )


def steps_an_epoch(training: TrainingConfig, users: int) -> int:
    """Steps in which a user is drawn once on average."""
    return math.ceil(users / training.global_batch_size)


def epsilon(noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    """Upper bound of epsilon after so many steps.

    Raises:
        ValueError: there is too little noise for any bound.
    """
    accountant = opacus("accountants").RDPAccountant()
    accountant.history = [(noise_multiplier, rate, steps)]
    orders = [*accountant.DEFAULT_ALPHAS, *LARGE_ORDERS]
    with warnings.catch_warnings():
        # That the best order is the first or the last: the bound is true, and not the tightest.
        warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
        found = accountant.get_epsilon(delta, alphas=orders)
    if not math.isfinite(found):
        raise ValueError(
            f"training.privacy.noise_multiplier {noise_multiplier:g} promises nothing: raise it"
        )
    return found


def count_users(dataset: Artifact) -> int:
    """Users with training windows."""
    columns = [dataset.read_table(name, [schema.USER_ID]) for name in dataset.names("train/")]
    return pc.count_distinct(pa.concat_tables(columns)[schema.USER_ID]).as_py() if columns else 0


def promise_on(training: TrainingConfig, dataset: Artifact) -> Guarantee | None:
    """What a run on the dataset promises; None where it is nothing."""
    return guarantee(training, count_users(dataset)) if training.privacy.is_on else None


def check_private(model: ModelConfig, training: TrainingConfig, dataset: Artifact) -> None:
    """Hold that this model can be trained privately on this dataset.

    Raises:
        ValueError: a part of the model cannot be trained so, or holds what was not.
    """
    if model.item_features == "hybrid":
        raise ValueError(
            "training.privacy goes without model.item_features 'hybrid', which holds each item's "
            "number of events: set it to 'text' or 'id'"
        )
    if model.tuning != "frozen":
        raise ValueError(
            f"training.privacy goes without model.tuning '{model.tuning}': every user's gradient "
            "of a language model would be in memory; set it to 'frozen'"
        )
    if model.user_encoder not in PRIVATE_ENCODERS:
        raise ValueError(
            f"training.privacy takes model.user_encoder {' or '.join(PRIVATE_ENCODERS)}, and it is "
            f"'{model.user_encoder}'"
        )
    guarantee(training, count_users(dataset))

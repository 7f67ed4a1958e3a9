"""Whom a step of private training learns from: each user with the same probability, or not at all.

Draws come from the operating system's entropy and not from the config's seed: epsilon counts on
nobody knowing who was drawn. So no two runs are alike, and one that goes on draws anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

from recsys import schema
from recsys.artifact import Artifact
from recsys.config import TrainingConfig
from recsys.data.collate import read_rows
from recsys.training.cursor import Cursor
from recsys.training.guarantee import opacus, steps_an_epoch


def secret_generator(device: torch.device | None = None) -> torch.Generator:
    """A generator whose seed nobody knows. It is fast and not cryptographic."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(secrets.randbits(63))


class PoissonWindows:
    """One window, drawn from all of a user's, of each user who is drawn; all are in memory."""

    def __init__(self, dataset: Artifact, training: TrainingConfig) -> None:
        windows = read_rows(dataset, "train")
        users = windows[schema.USER_ID].combine_chunks().dictionary_encode()
        codes = users.indices.to_numpy()
        self._windows = windows.take(pa.array(np.argsort(codes, kind="stable")))
        self._counts = np.bincount(codes)
        self._starts = np.cumsum(self._counts) - self._counts
        self._training = training
        self._random = np.random.default_rng()  # from the operating system's entropy
        self._users = secret_generator()

    @property
    def num_users(self) -> int:
        """Users with training windows."""
        return len(self._counts)

    def steps(self, batch_size: int) -> int:
        """Steps of an epoch: in it a user is drawn once on average."""
        assert batch_size == self._training.global_batch_size
        return steps_an_epoch(self._training, self.num_users)

    def batches(self, cursor: Cursor, batch_size: int) -> Iterator[pa.Table]:
        """The windows of each step that is left of the cursor's epoch; none if nobody is drawn."""
        left = (cursor.epoch + 1) * self.steps(batch_size) - cursor.step
        sampler = opacus("utils.uniform_sampler").UniformWithReplacementSampler(
            num_samples=self.num_users,
            sample_rate=batch_size / self.num_users,
            generator=self._users,
            steps=left,
        )
        for users in sampler:
            yield self._windows.take(pa.array(self._one_each(np.array(users, dtype=np.int64))))

    def _one_each(self, users: np.ndarray) -> np.ndarray:
        """A row of each of these users."""
        return self._starts[users] + self._random.integers(self._counts[users])

"""What the recommender expects all users together to take: each item's share of it.

For a user at some time, the probability of an item is the softmax of the scores of the user's best
items at the temperature of training, as the sequence loss takes it. Users count by their recent
events. Each item's sum over users is its demand.

Shapes: S sequences, E events, O origins (the times at which a forecast begins), N items, B
histories, K results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from recsys.artifact import Artifact, open_artifact
from recsys.bulk.histories import NAME, history_at, map_files
from recsys.config.bulk import ForecastConfig, HistoriesConfig
from recsys.data.history import Sequences, to_sequences
from recsys.engine.recommender import Ranked, Recommender
from recsys.schema import SECONDS_A_DAY

ACTIVE_HALF_LIFE = 28.0
"""Days after which an event says half as much of how much its user will take."""
LEAST_ACTIVITY = 0.02
"""Users below it, whose only event is 5.6 half-lives old, are not ranked."""
UNIT = 2.0**-32
"""Demand is summed as whole numbers of this, so that a sum has no order. 2^63 units are two
billion users' events."""


@dataclass(frozen=True)
class States:
    """Distinct beginnings of sequences, and how much each counts at each origin.

    Sequence `numbers` (M,), its first `ends` (M,) events, `weights` (M, O).
    """

    numbers: np.ndarray
    ends: np.ndarray
    weights: np.ndarray


def states_at(sequences: Sequences, origins: Sequence[float]) -> States:
    """What was known of each user at each origin (Unix seconds), for active users alone.

    A user who did nothing between two origins has one state for both.
    """
    numbers, ends, weights = [], [], []
    for place, origin in enumerate(origins):
        earlier = sequences.timestamps < origin
        ages = np.maximum(0.0, origin - sequences.timestamps) / SECONDS_A_DAY
        activity = _sums(sequences, earlier * 0.5 ** (ages / ACTIVE_HALF_LIFE))
        active = np.flatnonzero(activity >= LEAST_ACTIVITY)
        numbers.append(active)
        ends.append(_sums(sequences, earlier.astype(np.int64))[active])
        of_origin = np.zeros((len(active), len(origins)))
        of_origin[:, place] = activity[active]
        weights.append(of_origin)
    pairs = np.stack([np.concatenate(numbers), np.concatenate(ends)], axis=1)
    distinct, places = np.unique(pairs, axis=0, return_inverse=True)
    total = np.zeros((len(distinct), len(origins)))
    np.add.at(total, places.reshape(-1), np.concatenate(weights))
    return States(distinct[:, 0], distinct[:, 1], total)


def _sums(sequences: Sequences, of_events: np.ndarray) -> np.ndarray:
    """(S,) sums over the events of each sequence."""
    running = np.concatenate([np.zeros(1, of_events.dtype), np.cumsum(of_events)])
    return np.diff(running[sequences.offsets])


def spread(
    ranked: Sequence[Ranked], weights: np.ndarray, temperature: float, num_items: int
) -> np.ndarray:
    """(O, N) whole `UNIT`s: each history's weights (B, O), spread over its ranked items."""
    found = np.zeros((weights.shape[1], num_items), dtype=np.int64)
    for one, of_history in zip(ranked, weights, strict=True):
        logits = np.array(one.scores, dtype=np.float64) / temperature
        chances = np.exp(logits - logits.max(initial=-np.inf))
        shares = of_history[:, None] * (chances / chances.sum())
        found[:, one.item_indexes] += np.rint(shares / UNIT).astype(np.int64)
    return found


def shares_of(units: np.ndarray) -> np.ndarray:
    """(O, N) each item's share of the demand at each origin; even where there is no demand."""
    totals = units.sum(1, keepdims=True, dtype=np.float64)
    return np.where(totals > 0, units / np.maximum(totals, 1.0), 1.0 / units.shape[1])


@dataclass(frozen=True)
class Task:
    """What an actor must know."""

    dataset: str
    checkpoint: str
    index: str
    origins: tuple[float, ...]
    top_k: int
    batch_size: int


def demand_shares(
    config: ForecastConfig,
    histories: HistoriesConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    index: Artifact,
    origins: Sequence[float],
) -> np.ndarray:
    """(O, N) each item's share of the demand that the recommender sees at each origin."""
    recommender = Recommender.load(checkpoint, index, filter_seen=False)
    units = np.zeros(len(origins) * recommender.num_items, dtype=np.int64)
    uris = (dataset.uri, checkpoint.uri, index.uri)
    task = Task(*uris, tuple(origins), config.top_k, histories.batch_size)
    for block in map_files(dataset, Spreading, (task,), histories.num_workers):
        units[block["place"].to_numpy()] += block["units"].to_numpy()
    return shares_of(units.reshape(len(origins), -1))


class Spreading:
    """A Ray Data actor around one recommender."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self._task = task
        self._dataset = open_artifact(task.dataset, "dataset", check=False)
        checkpoint = open_artifact(task.checkpoint, "checkpoint", check=False)
        index = open_artifact(task.index, "index", check=False)
        self._recommender = Recommender.load(checkpoint, index, filter_seen=False)
        self._temperature = float(checkpoint.manifest.config["model"]["temperature"])

    def __call__(self, block: pa.Table) -> pa.Table:
        [name] = block[NAME].to_pylist()
        sequences = to_sequences(self._dataset.read_table(name))
        states = states_at(sequences, self._task.origins)
        units = np.zeros((len(self._task.origins), self._recommender.num_items), dtype=np.int64)
        for start in range(0, len(states.numbers), self._task.batch_size):
            units += self._spread(sequences, states, slice(start, start + self._task.batch_size))
        flat = units.reshape(-1)
        places = np.flatnonzero(flat)
        return pa.table({"place": places, "units": flat[places]})

    def _spread(self, sequences: Sequences, states: States, at: slice) -> np.ndarray:
        pairs = zip(states.numbers[at].tolist(), states.ends[at].tolist(), strict=True)
        some = [history_at(sequences, number, end) for number, end in pairs]
        ranked = self._recommender.rank(some, [self._task.top_k] * len(some), [[]] * len(some))
        size = self._recommender.num_items
        return spread(ranked, states.weights[at], self._temperature, size)

"""Ingest into training against a mock loader: what share of a step is spent waiting for data.

One process, one torch thread, no Ray: the toy model on cached text vectors, windows of a generated
world from a dataset on disk. Real reads, shuffles, buckets and collates on the background thread;
mock has the same batches ready in memory. Both train the same epochs, in turns. Ratio: seconds
waited, the first batch's included, over seconds of the epoch.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import ModelConfig, WorldConfig
from recsys.data.history import Sequences
from recsys.data.split import TRAIN, train_windows
from recsys.data.synthetic import EVENT_SHARES, World, generate
from recsys.data.vocabulary import ItemVocabulary
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import split_loss
from recsys.schema import Batch
from recsys.training.cursor import Cursor, TrainWindows
from recsys.training.ingest import Ingest, RankBatches, Ready

ROUNDS, BATCH, MAX_HISTORY, TEXT_SIZE, FILES = 7, 64, 30, 384, 4
TARGET = 0.05


@dataclass(frozen=True)
class Epoch:
    """Seconds waited before each step, seconds of the whole, and its windows."""

    waits: np.ndarray
    seconds: float
    num_windows: int

    @property
    def stall_share(self) -> float:
        """Share of the epoch spent waiting for data."""
        return float(self.waits.sum() / self.seconds)

    @property
    def speed(self) -> float:
        """Windows a second."""
        return self.num_windows / self.seconds


class Step:
    """One step of training on the whole catalogue."""

    def __init__(self, num_items: int) -> None:
        config = ModelConfig()
        shape = ModelShape(
            num_items=num_items,
            max_history=MAX_HISTORY,
            num_events=len(EVENT_SHARES),
            text_size=TEXT_SIZE,
        )
        self._model = build_model(config, shape).train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3)
        self._inputs = ItemInputs(torch.arange(num_items), text=torch.randn(num_items, TEXT_SIZE))
        self._config = config

    def __call__(self, batch: Batch) -> None:
        """Forward, backward, update."""
        users_PD, items_CD, targets_P = self._model(batch, self._inputs)
        temperature, num_parts = self._config.temperature, self._config.num_parts
        loss = split_loss(users_PD, items_CD, targets_P, temperature, None, None, num_parts)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def main() -> None:
    """Run both and print the result as one JSON object."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = generate(WorldConfig(num_queries=0))
    step = Step(len(world.items))
    real: list[Epoch] = []
    mock: list[Epoch] = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = _write(world, folder)
        for seed in range(ROUNDS + 1):
            for epochs in (real, mock) if seed % 2 else (mock, real):
                epochs.append((_mock_epoch if epochs is mock else _real_epoch)(step, dataset, seed))
        padding = {buckets: _padding_share(dataset, buckets) for buckets in (True, False)}
    _report(real[1:], mock[1:], padding)  # the first of each warms up


def _write(world: World, folder: str) -> Artifact:
    """The world's histories as the train rows that prepare would write."""
    users = world.interactions[schema.USER_ID].combine_chunks().dictionary_encode()
    items = ItemVocabulary(world.items[schema.ITEM_ID])
    kinds = {name: number for number, name in enumerate(EVENT_SHARES)}
    sequences = Sequences(
        user_ids=users.dictionary,
        offsets=np.append(0, np.cumsum(np.bincount(users.indices.to_numpy()))),
        item_indexes=items.indexes_of(world.interactions[schema.ITEM_ID].to_pylist()),
        timestamps=world.interactions[schema.TIMESTAMP].to_numpy(),
        events=np.array([kinds[name] for name in world.interactions[schema.EVENT].to_pylist()]),
        split=np.full(len(world.interactions), TRAIN),
    )
    windows = train_windows(sequences, sequences.split, MAX_HISTORY)
    writer, size = ArtifactWriter(f"{folder}/dataset", "dataset"), -(-len(windows) // FILES)
    for number in range(FILES):
        writer.add_table(f"train/part-{number}.parquet", windows.slice(number * size, size))
    return writer.publish({}, {}, {"rows": {"train": len(windows)}})


def _batches(dataset: Artifact, seed: int, buckets: bool = True) -> Iterator[Ready | None]:
    """One epoch of one worker."""
    windows = TrainWindows(dataset, seed, shuffle_windows=1_000_000, length_buckets=buckets)
    return RankBatches(windows, BATCH, rank=0, world_size=1).epochs(Cursor(), num_epochs=1)


def _real_epoch(step: Step, dataset: Artifact, seed: int) -> Epoch:
    started = time.perf_counter()
    dataset = open_artifact(dataset.uri, "dataset", check=False)
    with Ingest(_batches(dataset, seed)) as ingest:
        return _train(step, ingest.epoch(), started)


def _mock_epoch(step: Step, dataset: Artifact, seed: int) -> Epoch:
    ready = [batch for batch in _batches(dataset, seed) if batch]
    return _train(step, iter(ready), time.perf_counter())


def _train(step: Step, batches: Iterator[Ready], started: float) -> Epoch:
    asked, num_windows = started, 0
    waits: list[float] = []
    for ready in batches:
        waits.append(time.perf_counter() - asked)
        step(ready.batch)
        num_windows += ready.num_windows
        asked = time.perf_counter()
    return Epoch(np.array(waits), asked - started, num_windows)


def _padding_share(dataset: Artifact, buckets: bool) -> float:
    """Share of the positions of an epoch's batches that hold no event."""
    batches = [ready.batch for ready in _batches(dataset, 0, buckets) if ready]
    places = sum(batch.item_indexes.numel() for batch in batches)
    return 1 - sum(int(batch.lengths.sum()) for batch in batches) / places


def _report(real: list[Epoch], mock: list[Epoch], padding: dict[bool, float]) -> None:
    shares = [epoch.stall_share for epoch in real]
    waits_ms = 1e3 * np.concatenate([epoch.waits[1:] for epoch in real])
    speeds = [r.speed / m.speed for r, m in zip(real, mock, strict=True)]
    detail = {
        "stall_shares": [round(share, 4) for share in shares],
        "time_to_first_batch_ms": round(1e3 * statistics.median(e.waits[0] for e in real), 2),
        "wait_ms": {
            "mean": round(float(waits_ms.mean()), 3),
            "p99": round(float(np.quantile(waits_ms, 0.99)), 3),
        },
        "windows_per_second": {
            "real": round(statistics.median(epoch.speed for epoch in real), 1),
            "mock": round(statistics.median(epoch.speed for epoch in mock), 1),
        },
        "real_over_mock": round(statistics.median(speeds), 3),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "padding_share": {
            "length_buckets": round(padding[True], 3),
            "shuffled": round(padding[False], 3),
        },
        "windows": real[0].num_windows,
    }
    result = {
        "benchmark": "ingest",
        "peer": "mock loader: the same batches ready in memory",
        "ratio": round(statistics.median(shares), 4),
        "target": TARGET,
        "higher_is_better": False,
        "detail": detail,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

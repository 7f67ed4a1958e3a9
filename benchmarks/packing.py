"""Packed texts and balanced ranks against padded texts and ranks that take windows as they come.

A language model of item texts learns in full; lengths of texts and of histories follow Zipf's law.
Both sides learn from the same global batches, two ranks' shares one after the other on one thread,
in turns; a step lasts as long as its slower rank. CPU seconds, so that other work on the machine
counts little. Ratio: real tokens a second, over those of the peer.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from recsys.config import ModelConfig
from recsys.data.collate import collate_windows
from recsys.models.backbone import Tokens, load_text_encoder, pack_tokens, pad_tokens
from recsys.models.build import ModelShape, build_model
from recsys.models.candidates import draw_candidates
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import softmax_loss
from recsys.models.recommender_model import RecommenderModel
from recsys.training.cursor import rank_places

RANKS, WINDOWS, ITEMS, ROUNDS = 2, 16, 2_000, 4
MAX_TOKENS, MAX_EVENTS, EXPONENT = 64, 50, 1.2
TARGET = 1.5


@dataclass(frozen=True)
class Way:
    """One of the two ways to train."""

    packed: bool

    def places(self, batch: pa.Table, rank: int) -> np.ndarray:
        """The windows of a rank."""
        if self.packed:
            return rank_places(batch, rank, RANKS)
        return np.arange(rank, len(batch), RANKS)


@dataclass(frozen=True)
class Step:
    """CPU seconds, real tokens and slots of them, and events, of each rank in a step."""

    seconds: list[float]
    tokens: list[int]
    slots: list[int]
    events: list[int]

    @property
    def speed(self) -> float:
        """Real tokens a second of all ranks, which wait for the slowest."""
        return sum(self.tokens) / max(self.seconds)


class Trainer:
    """The model and what it learns from."""

    def __init__(self, random: np.random.Generator) -> None:
        config = ModelConfig(item_features="text", tuning="full", embedding_size=64)
        encoder = load_text_encoder(config)
        shape = ModelShape(
            num_items=ITEMS, max_history=MAX_EVENTS, num_events=1, text_size=encoder.size
        )
        self._model: RecommenderModel = build_model(config, shape, encoder).train()
        lengths = 4 + zipf(random, ITEMS, MAX_TOKENS - 4)
        self._texts = [random.integers(1_000, 20_000, size).tolist() for size in lengths]

    def step(self, way: Way, windows: pa.Table) -> Step:
        """Forward and backward pass of every rank's share of a global batch."""
        step = Step([], [], [], [])
        for rank in range(RANKS):
            self._model.zero_grad()
            started = time.process_time()
            batch = collate_windows(windows.take(pa.array(way.places(windows, rank))))
            counts, draws = torch.ones(ITEMS, dtype=torch.int64), torch.Generator()
            candidates, batch = draw_candidates(batch, counts, 0, draws)
            texts = [self._texts[item] for item in candidates.item_indexes.tolist()]
            tokens = pack_tokens(texts) if way.packed else pad_tokens(texts)
            inputs = ItemInputs(candidates.item_indexes, tokens=tokens)
            users_PD, items_CD, targets_P = self._model(batch, inputs)
            softmax_loss(users_PD, items_CD, targets_P, 0.07, candidates.log_q).backward()
            step.seconds.append(time.process_time() - started)
            groups = (tokens,) if isinstance(tokens, Tokens) else tokens.groups
            step.tokens.append(sum(map(len, texts)))
            step.slots.append(sum(group.ids.numel() for group in groups))
            step.events.append(int(batch.lengths.sum()))
        return step


def main() -> None:
    """Run both and print the result as one JSON object."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    trainer, ways = Trainer(random), {"packed": Way(True), "padded": Way(False)}
    steps: dict[str, list[Step]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        windows = make_windows(random)
        for name in sorted(ways, reverse=bool(number % 2)):
            steps[name].append(trainer.step(ways[name], windows))
    _report(steps)


def zipf(random: np.random.Generator, count: int, most: int) -> np.ndarray:
    """Numbers from 1 to `most`; how often each comes falls with a power of it."""
    shares = np.arange(1, most + 1) ** -EXPONENT
    return 1 + random.choice(most, count, p=shares / shares.sum())


def make_windows(random: np.random.Generator) -> pa.Table:
    """A global batch."""
    lengths = 2 + zipf(random, WINDOWS, MAX_EVENTS - 2)
    items = [random.integers(ITEMS, size=size).tolist() for size in lengths]
    return pa.table(
        {
            "item_indexes": pa.array(items, pa.large_list(pa.int32())),
            "timestamps": pa.array([list(range(n)) for n in lengths], pa.large_list(pa.int64())),
            "events": pa.array([[0] * n for n in lengths], pa.large_list(pa.int8())),
        }
    )


def _report(steps: dict[str, list[Step]]) -> None:
    packed, padded = steps["packed"], steps["padded"]
    ratios = [one.speed / other.speed for one, other in zip(packed, padded, strict=True)]
    detail: dict[str, object] = {"ratios": [round(ratio, 2) for ratio in ratios]}
    for name, found in steps.items():
        real = sum(sum(step.tokens) for step in found)
        uneven = [max(s.events) / statistics.mean(s.events) for s in found]
        detail[name] = {
            "tokens_per_second": round(statistics.median(step.speed for step in found)),
            "padding_share": round(1 - real / sum(sum(s.slots) for s in found), 3),
            "slowest_rank_over_mean": round(
                statistics.median(max(s.seconds) / statistics.mean(s.seconds) for s in found), 3
            ),
            "most_events_over_mean": round(statistics.median(uneven), 3),
        }
    result = {
        "benchmark": "packing",
        "peer": "texts padded to the batch's longest, every other window a rank",
        "ratio": round(statistics.median(ratios), 2),
        "target": TARGET,
        "higher_is_better": True,
        "detail": detail,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

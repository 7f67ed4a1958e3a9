"""A user's next answer from what was read before, against reading the whole history again.

    python -m benchmarks.user_state

One new event at a time, one user at a time, one thread: what a service does between two clicks.
Random weights: speed does not depend on them. Peer: the same model without memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from recsys.config import ModelConfig
from recsys.data.collate import collate_histories
from recsys.engine.user_states import UserStates
from recsys.index.item_index import make_index
from recsys.models.build import ModelShape, build_model
from recsys.schema import History

NUM_ITEMS, STEPS, MEGABYTES = 10_000, 40, 256


@dataclass(frozen=True)
class Arguments:
    """How long histories are; the ratio is of the last."""

    lengths: tuple[int, ...] = (300, 512, 1_024)
    """Events of a history before the first new one."""


def main(arguments: Arguments) -> None:
    """Print milliseconds an answer for each length, and the ratio last."""
    torch.set_num_threads(1)
    detail = {str(length): _measure(length) for length in arguments.lengths}
    last = detail[str(arguments.lengths[-1])]
    result = {
        "benchmark": "user_state",
        "peer": "the same model without memory",
        "ratio": round(last["whole_ms"] / last["step_ms"], 2),
        "target": 3.0,
        "higher_is_better": True,
        "detail": detail,
    }
    print(json.dumps(result))


def _measure(length: int) -> dict[str, float]:
    random = np.random.default_rng(0)
    times = 1_700_000_000 + np.cumsum(random.integers(60, 90_000, length + STEPS))
    items = random.integers(0, NUM_ITEMS, length + STEPS)
    whole = History(items, times, np.zeros(length + STEPS, dtype=np.int64))
    asked = [whole.take(slice(0, length + step)) for step in range(STEPS)]
    shape = ModelShape(num_items=NUM_ITEMS, max_history=length + STEPS, num_events=1, text_size=384)
    torch.manual_seed(0)
    model = build_model(ModelConfig(use_time=True), shape).eval()
    vectors_ND = torch.nn.functional.normalize(torch.randn(NUM_ITEMS, 128), dim=1)
    index = make_index(
        vectors_ND, "fp32", torch.arange(NUM_ITEMS), torch.zeros(NUM_ITEMS, dtype=torch.bool)
    )
    states = UserStates(model, index, shape.max_history, MEGABYTES)

    @torch.inference_mode()
    def read_whole(history: History) -> torch.Tensor:
        batch = collate_histories([history], shape.max_history)
        return model.encode_users(index.vectors_of(batch.item_indexes), batch)

    states.encode(asked[:1])
    step_ms, whole_ms, unchanged_ms, difference = [], [], [], 0.0
    for history in asked[1:]:
        found, took = _timed(lambda h: states.encode([h]), history)
        step_ms.append(took)
        unchanged_ms.append(_timed(lambda h: states.encode([h]), history)[1])
        wanted, took = _timed(read_whole, history)
        whole_ms.append(took)
        difference = max(difference, float((found - wanted).abs().max()))
    assert states.counts["extended"] == STEPS - 1
    return {
        "whole_ms": float(np.median(whole_ms)),
        "step_ms": float(np.median(step_ms)),
        "unchanged_ms": float(np.median(unchanged_ms)),
        "largest_difference": difference,
    }


def _timed(work: Callable[[History], torch.Tensor], history: History) -> tuple[torch.Tensor, float]:
    started = time.perf_counter()
    found = work(history)
    return found, (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

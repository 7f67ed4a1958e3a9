"""The loss in chunks of positions against the logits of all positions at once, on 150,000 items.

Forward and backward pass of the training loss of a hybrid model (two halves of 64), one thread.
Memory: each side in a fresh process, its peak above what it held before the loss. Time: CPU seconds
of this process, in turns, so that other work on the machine counts little. `ratio` is that of
memory; that of time is beside it.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import time

import psutil
import torch
import torch.nn.functional as F

from recsys.models.losses import split_loss

ITEMS, POSITIONS, SIZE, PARTS, CHUNK, ROUNDS = 150_000, 512, 128, 2, 64, 5
TARGET, TARGET_SECONDS = 0.4, 1.1


def main() -> None:
    """Run both and print the result as one JSON object."""
    torch.set_num_threads(1)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        full_mib, chunked_mib = pool.map(peak_mib, (0, CHUNK), chunksize=1)
    seconds: dict[int, list[float]] = {0: [], CHUNK: []}
    vectors = _vectors()
    for number in range(ROUNDS + 1):
        for chunk in (0, CHUNK) if number % 2 else (CHUNK, 0):
            started = time.process_time()
            _learn(vectors, chunk)
            seconds[chunk].append(time.process_time() - started)
    _report(full_mib, chunked_mib, seconds[0][1:], seconds[CHUNK][1:])  # the first warms up


def peak_mib(chunk: int) -> float:
    """Memory of one pass at its peak, above that of the vectors."""
    torch.set_num_threads(1)
    vectors = _vectors()
    before = psutil.Process().memory_info().rss
    _learn(vectors, chunk)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before / 2**20


def _vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    users = F.normalize(torch.randn(POSITIONS, SIZE, generator=random), dim=-1)
    items = F.normalize(torch.randn(ITEMS, SIZE, generator=random), dim=-1)
    targets = torch.randint(ITEMS, (POSITIONS,), generator=random)
    return users.requires_grad_(), items.requires_grad_(), targets


def _learn(vectors: tuple[torch.Tensor, torch.Tensor, torch.Tensor], chunk: int) -> None:
    for vector in vectors[:2]:
        vector.grad = None
    split_loss(*vectors, 0.07, None, None, PARTS, chunk=chunk).backward()


def _report(full_mib: float, chunked_mib: float, full: list[float], chunked: list[float]) -> None:
    ratios = [c / f for c, f in zip(chunked, full, strict=True)]
    result = {
        "benchmark": "chunked_loss",
        "peer": "the same loss with the logits of all positions at once",
        "ratio": round(chunked_mib / full_mib, 3),
        "target": TARGET,
        "higher_is_better": False,
        "detail": {
            "seconds_ratio": round(statistics.median(ratios), 3),
            "seconds_target": TARGET_SECONDS,
            "seconds_ratios": [round(ratio, 3) for ratio in ratios],
            "peak_mib": {"chunked": round(chunked_mib), "full": round(full_mib)},
            "cpu_seconds": {
                "chunked": round(statistics.median(chunked), 3),
                "full": round(statistics.median(full), 3),
            },
            "items": ITEMS,
            "positions": POSITIONS,
            "chunk": CHUNK,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

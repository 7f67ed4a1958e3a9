"""Item vectors of fewer bits against float32: time of a search, memory, and what is found.

One process, one thread, clustered random unit vectors; the index of each precision answers the same
queries in turns, one alone and all together. Ratio: bytes of the float32 index over bytes of the
int8 one; in `detail` the times, and the share of the float32 index's first 100 items that each of
the others finds.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import get_args

import torch
import torch.nn.functional as F

from recsys.index.item_index import ExactIndex, Precision, QuantisedIndex, make_index

ITEMS, SIZE, QUERIES, CLUSTERS, TOP_K, ROUNDS = 100_000, 128, 64, 1_000, 100, 5
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TARGET = 3.5


def main() -> None:
    """Search with each index and print the result as one JSON object."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLUSTERS, SIZE, generator=generator)
    vectors = _around(centres, ITEMS, generator)
    indexes = {precision: make_index(vectors, precision) for precision in PRECISIONS}
    queries = _around(centres, QUERIES, generator)
    found = {name: index.search(queries, TOP_K, [[]] * QUERIES) for name, index in indexes.items()}
    times = {name: {1: [], QUERIES: []} for name in indexes}
    for _ in range(ROUNDS):
        for name, index in indexes.items():
            for count, seconds in times[name].items():
                seconds.append(_seconds(index, queries[:count]))
    sizes = {name: _num_bytes(index) for name, index in indexes.items()}
    recalls = {name: _recall(items, found["fp32"][1]) for name, (_, items) in found.items()}
    _report(times, sizes, recalls)


def _around(centres: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    rows = torch.randint(len(centres), (count,), generator=generator)
    return F.normalize(centres[rows] + torch.randn(count, SIZE, generator=generator), dim=-1)


def _seconds(index: ExactIndex | QuantisedIndex, queries: torch.Tensor) -> float:
    started = time.perf_counter()
    index.search(queries, TOP_K, [[]] * len(queries))
    return time.perf_counter() - started


def _num_bytes(index: ExactIndex | QuantisedIndex) -> int:
    return sum(tensor.nbytes for tensor in index.tensors().values())


def _recall(items_BK: torch.Tensor, right_BK: torch.Tensor) -> float:
    return (items_BK[:, :, None] == right_BK[:, None, :]).any(2).float().mean().item()


def _report(
    times: dict[str, dict[int, list[float]]],
    sizes: dict[str, int],
    recalls: dict[str, float],
) -> None:
    result = {
        "benchmark": "quantised_index",
        "peer": "the float32 index",
        "ratio": round(sizes["fp32"] / sizes["int8"], 2),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            "milliseconds_by_queries": {
                name: {count: round(1e3 * statistics.median(t), 2) for count, t in taken.items()}
                for name, taken in times.items()
            },
            "megabytes": {name: round(size / 1e6, 1) for name, size in sizes.items()},
            f"recall@{TOP_K}": {name: round(share, 4) for name, share in recalls.items()},
            "int8_products": torch.cpu._is_vnni_supported(),
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

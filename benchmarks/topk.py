"""Searching a million item vectors against FAISS Flat: exact, in 8 bits, and without scoring all.

One process, one thread, `ITEMS` unit vectors of 128 numbers around 1,000 centres, of which the
first numbers vary most; they stand for real ones, which may be easier or harder to find. Each query
has `SEEN` items that must not come, among them its best. FAISS Flat is asked for that many more and
drops them, which is faster than its selector. All take turns; times are of the CPU, so that other
work on the machine counts less. Ratio: FAISS Flat's time over that of the exact index for one
query; in `detail` all others, what was found, and how filters do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F

from recsys.index.approximate import Approximate, ApproximateIndex
from recsys.index.item_index import ExactIndex, ItemIndex, make_index
from recsys.index.recall import Sample, build_approximate, recall_facts

ITEMS, SIZE, CENTRES, QUERIES, TOP_K, SEEN, ROUNDS = 1_000_000, 128, 1_000, 32, 100, 50, 5
FIRST = 10
TARGET = 0.9
SHARES = (0.05, 0.2, 0.5)
Search = Callable[[int, int], torch.Tensor]
"""From a number of queries and of results to item indexes (B, K)."""


def main() -> None:
    """Search with each index and print the result as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--kind", choices=["ivf", "hnsw"], default="ivf")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CENTRES, SIZE, generator=generator)
    vectors = _around(centres, args.items, generator)
    queries = _around(centres, QUERIES, generator)
    exact = ExactIndex(vectors)
    seen = exact.search(queries, SEEN, [[]] * QUERIES)[1].tolist()
    found, facts = _approximate(exact, args.kind, _around(centres, 256, generator))
    filters = _filters(found, queries)
    indexes = {"exact": exact, args.kind: found, "int8": make_index(vectors, "int8")}
    searches = {name: _search(index, queries, seen) for name, index in indexes.items()}
    searches["faiss_flat"] = _flat(vectors, queries, seen)
    _report(args.kind, _times(searches), _found(searches), facts | filters)


def _around(centres: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    vectors = torch.randn(count, SIZE, generator=generator)
    vectors += centres[torch.randint(len(centres), (count,), generator=generator)]
    return F.normalize(vectors.mul_(torch.arange(1.0, SIZE + 1).rsqrt()), dim=-1)


def _approximate(
    exact: ExactIndex, kind: Approximate, users: torch.Tensor
) -> tuple[ApproximateIndex, dict[str, Any]]:
    """The index of the least effort for users other than those that are timed, and its facts."""
    seen = exact.search(users, SEEN, [[]] * len(users))[1].tolist()
    sample = Sample(users, seen, "users")
    started = time.process_time()
    index, facts = build_approximate(exact, kind, 0.95, exact, sample)
    facts["build_cpu_seconds"] = round(time.process_time() - started, 1)
    return index, facts | recall_facts(index, exact, sample)


def _search(index: ItemIndex, queries: torch.Tensor, seen: list[list[int]]) -> Search:
    return lambda count, top_k: index.search(queries[:count], top_k, seen[:count])[1]


def _flat(vectors: torch.Tensor, queries: torch.Tensor, seen: list[list[int]]) -> Search:
    flat = faiss.IndexFlatIP(SIZE)
    flat.add(vectors.numpy())
    barred = [np.array(items) for items in seen]

    def search(count: int, top_k: int) -> torch.Tensor:
        _, items = flat.search(queries[:count].numpy(), top_k + SEEN)
        kept = [row[~np.isin(row, bar)][:top_k] for row, bar in zip(items, barred, strict=False)]
        return torch.from_numpy(np.stack(kept))

    return search


def _times(searches: dict[str, Search]) -> dict[str, dict[str, float]]:
    """Median milliseconds of the CPU by search, number of queries and of results."""
    shapes = {"1, 100": (1, 100), "32, 100": (32, 100), "1, 10": (1, 10), "32, 10": (32, 10)}
    taken = {name: {shape: [] for shape in shapes} for name in searches}
    for _ in range(ROUNDS):
        for name, search in searches.items():
            for shape, (count, top_k) in shapes.items():
                taken[name][shape].append(_seconds(lambda s=search, c=count, k=top_k: s(c, k)))
    return {
        name: {shape: round(1e3 * statistics.median(all_), 2) for shape, all_ in by_shape.items()}
        for name, by_shape in taken.items()
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _found(searches: dict[str, Search]) -> dict[str, dict[str, float]]:
    """Share of FAISS Flat's first items that each finds."""
    right = searches["faiss_flat"](QUERIES, TOP_K)
    found: dict[str, dict[str, float]] = {}
    for name, search in searches.items():
        items = {k: search(QUERIES, k) for k in (FIRST, TOP_K)}
        found[name] = {f"recall@{k}": _shared(items[k], right[:, :k]) for k in items}
    return found


def _shared(items_BK: torch.Tensor, right_BK: torch.Tensor) -> float:
    hits = (items_BK[:, :, None] == right_BK[:, None, :]).any(2)
    return round(hits.float().mean().item(), 4)


def _filters(index: ApproximateIndex, queries: torch.Tensor) -> dict[str, dict[float, list[float]]]:
    """Milliseconds a query (alone) and recall@10 by the share of the items that a filter leaves: at
    random, and those nearest to some item, as the items of a category are."""
    chance = torch.rand(len(index.vectors), generator=torch.Generator().manual_seed(1))
    orders = {"at_random": chance, "alike": -(index.vectors @ index.vectors[0])}
    return {
        f"filter_{name}": {
            share: _filtered(index, queries, order <= np.quantile(order.numpy(), share))
            for share in SHARES
        }
        for name, order in orders.items()
    }


def _filtered(index: ApproximateIndex, queries: torch.Tensor, mask: torch.Tensor) -> list[float]:
    def alone(query: int) -> torch.Tensor:
        return index.search(queries[query : query + 1], FIRST, [[]], [mask])[1]

    right = index.exact.search(queries, FIRST, [[]] * QUERIES, [mask] * QUERIES)[1]
    seconds = [_seconds(lambda q=query: alone(q)) for query in range(QUERIES)]
    found = torch.cat([alone(query) for query in range(QUERIES)])
    return [round(1e3 * statistics.median(seconds), 2), _shared(found, right)]


def _report(
    kind: str,
    times: dict[str, dict[str, float]],
    found: dict[str, dict[str, float]],
    facts: dict[str, Any],
) -> None:
    flat = times["faiss_flat"]
    ratios = {
        name: {shape: round(flat[shape] / taken, 2) for shape, taken in by_shape.items()}
        for name, by_shape in times.items()
    }
    result = {
        "benchmark": "topk",
        "peer": "FAISS Flat",
        "ratio": ratios["exact"]["1, 100"],
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            "targets": {"int8": 2.5, kind: 10},
            "milliseconds_by_queries_and_results": times,
            "ratios": ratios,
            "found": found,
            kind: facts,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

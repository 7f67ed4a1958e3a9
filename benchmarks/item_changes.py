"""What a change of items costs a replica: the arrays of the catalogue are made anew, once for all
changes that wait together. Of search, words and text vectors are not in it: they cost what is
changed. Ratio: the time of one change over that of 256 together.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from recsys.engine.catalogue import Catalogue
from recsys.engine.filters import ItemFilters
from recsys.engine.query.facets import Facets
from recsys.index.changed_index import change
from recsys.index.item_index import ExactIndex, popularity_order

SIZE, TOGETHER = 64, 256


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    args = parser.parse_args()
    torch.set_num_threads(1)
    seconds = {str(n): [seconds_of(n, 1), seconds_of(n, TOGETHER)] for n in args.items}
    one, many = seconds[str(args.items[-1])]
    print(json.dumps({"ratio": round(one / many, 2), "detail": {"cpu_s": seconds}}))


def seconds_of(size: int, count: int) -> float:
    """CPU seconds until `count` new items are in a catalogue of `size`."""
    catalogue, index = catalogue_of(size), ExactIndex(F.normalize(torch.randn(size, SIZE), dim=1))
    ids = [f"new-{n}" for n in range(count)]
    started = time.process_time()
    grown = catalogue.with_items(ids, [{"title": "new", "category": "c1", "price": 1.0}] * count)
    order, places = popularity_order(grown.train_counts), torch.arange(size, size + count)
    change(index, size, places, torch.randn(count, SIZE), order, grown.removed)
    ItemFilters(grown.columns, len(grown))
    Facets(grown.items)
    return round(time.process_time() - started, 2)


def catalogue_of(size: int) -> Catalogue:
    """Titles of five words, 300 categories, 5,000 brands, a price."""
    rng, text = np.random.default_rng(0), pa.large_string()
    return Catalogue(
        pa.table(
            {
                "item_id": pa.array([f"item-{n}" for n in range(size)], text),
                "title": pa.array([f"a title of item {n}" for n in range(size)], text),
                "category": pa.array([f"c{n % 300}" for n in range(size)], text),
                "brand": pa.array([f"b{n % 5_000}" for n in range(size)], text),
                "price": rng.random(size),
                "train_count": rng.integers(0, 100, size),
                "removed": np.zeros(size, dtype=bool),
            }
        )
    )


if __name__ == "__main__":
    main()

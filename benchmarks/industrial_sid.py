"""Industrial scored as its published table was: a hit is an equal semantic id, not an equal item.

    python -m benchmarks.industrial_sid --data <dir> --output outputs/industrial

The data's items carry the published ids in `minionerec_sid`; 31 items share one with another, among
them articles listed twice with the same words, which text alone cannot tell apart. `report.json`
scores items, which is stricter. Peer: MiniOneRec's published NDCG@10 on these test rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import tyro

from recsys.artifact import open_artifact
from recsys.data.collate import histories_of, read_rows, targets_of
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Recommender

PUBLISHED = 0.1167
BEAM, BATCH, CUTOFFS = 50, 256, (3, 5, 10)
NOT_FOUND = 1_000


@dataclass(frozen=True)
class Arguments:
    """Where the raw data and the run are."""

    data: str
    """Directory with items.parquet."""
    output: str
    """Output directory of a pipeline run on that data."""


def main(arguments: Arguments) -> None:
    """Score the test rows of a run by semantic id."""
    kinds = ("dataset", "checkpoint", "index")
    dataset, checkpoint, index = (open_artifact(f"{arguments.output}/{k}", k) for k in kinds)
    recommender = Recommender.load(checkpoint, index, filter_seen=False)
    catalogue = Catalogue(index.read_table("items.parquet"))
    raw = pq.read_table(f"{arguments.data}/items.parquet", columns=["item_id", "minionerec_sid"])
    published = dict(zip(*(column.to_pylist() for column in raw.columns), strict=True))
    sids = np.array([published[item_id] for item_id in catalogue.vocabulary.item_ids])
    rows = read_rows(dataset, "test")
    histories, targets = histories_of(rows), [t[0] for t in targets_of(rows)]
    ranks = []
    for start in range(0, len(histories), BATCH):
        some = histories[start : start + BATCH]
        for found in recommender.rank(some, [BEAM] * len(some), [[]] * len(some)):
            ranks.append(_rank(sids[found.item_indexes], str(sids[targets[len(ranks)]])))
    _report(np.array(ranks))


def _rank(sids: np.ndarray, target: str) -> int:
    """Place of the target among the distinct ids, from 0."""
    _, first = np.unique(sids, return_index=True)
    hits = np.flatnonzero(sids[np.sort(first)] == target)
    return int(hits[0]) if len(hits) else NOT_FOUND


def _report(ranks: np.ndarray) -> None:
    gains = 1 / np.log2(ranks + 2)
    detail = {f"hr@{k}": round(float((ranks < k).mean()), 4) for k in CUTOFFS}
    detail |= {f"ndcg@{k}": round(float((gains * (ranks < k)).mean()), 4) for k in CUTOFFS}
    result = {
        "benchmark": "industrial_sid",
        "peer": "MiniOneRec, published NDCG@10",
        "ratio": round(detail["ndcg@10"] / PUBLISHED, 3),
        "target": 1.0,
        "higher_is_better": True,
        "detail": detail | {"rows": len(ranks)},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

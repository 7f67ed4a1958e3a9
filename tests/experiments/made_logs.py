"""A small world whose true effect is known: users who like items, and click on what they see."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.experiments.differences import Sample
from recsys.experiments.exposures import Exposure, to_table

START = 1_750_000_000
DAY = 86_400


def clicking_users(rng: np.random.Generator, users: int, lift: float = 0.0) -> Sample:
    """Users who differ in how much they see and in how readily they click, and stay as they are.

    The true CTR is E[seen * rate] / E[seen] = 0.2 + lift: rates are drawn apart from what is seen.
    """
    seen = rng.geometric(0.1, users).astype(float)
    rates = rng.beta(2, 8, users)
    before = rng.binomial(rng.geometric(0.1, users), rates).astype(float)
    return Sample(rng.binomial(seen.astype(int), rates + lift).astype(float), seen, before)


def exposure(user: str, variant: str = "a", items: Iterable[str] = ("x", "y"), **more) -> Exposure:
    """One answer at `START`, of experiment `exp`."""
    items = list(items)
    defaults = {
        "request_id": f"{user}-{variant}-{more.get('timestamp', START)}",
        "experiment": "exp",
        "timestamp": START,
        "model_version": "1",
        "positions": list(range(1, len(items) + 1)),
    }
    return Exposure(**defaults | {"user_id": user, "variant": variant, "item_ids": items} | more)


def write_logs(place: Path, exposures: list[Exposure] | pa.Table, events: list[tuple]) -> None:
    """Both folders; each event is (user, item, seconds, event)."""
    table = exposures if isinstance(exposures, pa.Table) else to_table(exposures)
    kinds = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64()}
    kinds |= {"event": pa.string()}
    rows = pa.Table.from_pylist(
        [dict(zip(kinds, event, strict=True)) for event in events], pa.schema(kinds)
    )
    for name, content in (("exposures", table), ("feedback", rows)):
        (place / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(content, place / name / "part-0.parquet")

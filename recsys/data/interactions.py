"""Interactions at scale: read, clean, one shuffle by user, sort, split, write.

    read_piece -> clean_block -> repartition(user_id) -> sort_block -> write_block
                      |                                      |             |
                 quarantine/                            quarantine/   events/ train/ valid/ test/

Between the last two may come a look ahead over all blocks: the k-core, the cuts of a time split.
Workers write their own files, named by their content; the driver sees file entries, counts, and
arrays as long as the catalogue. Item features never travel here: rows carry item indexes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import ray

from recsys import schema
from recsys.artifact import FileEntry, parquet_bytes, write_file
from recsys.config import PrepareConfig
from recsys.data.history import (
    COPIES,
    EVENT_INDEX,
    NO_VALUE,
    SPLIT_INDEX,
    busiest_days,
    sort_events,
    to_sequences,
    user_starts,
)
from recsys.data.lookahead import Core, find_core, measure_times
from recsys.data.privacy import pseudonymise
from recsys.data.profile import Profile, merge_profiles, profile_sequences
from recsys.data.quality import (
    apply_rules,
    normalise,
    rules_for,
    with_indexes,
    with_rule,
)
from recsys.data.sources import Piece, Source, read_piece
from recsys.data.split import (
    BY_TIME,
    TEST,
    TRAIN,
    VALID,
    SplitPlan,
    assign_split,
    count_targets,
    held_out_rows,
    plan_split,
    train_windows,
)

EVENTS, QUARANTINE = "events", "quarantine/interactions"
ROBOT = "too_many_events_a_day"
ROW_BYTES = 48
"""A cleaned event in the shuffle, with an id of about 12 letters."""
PARTITION_BYTES = 64 << 20
"""A partition of the shuffle; its reducer needs about three times as much memory."""
MIN_MAP_BYTES, USUAL_MAP_BYTES, MAX_MAP_BYTES = 32 << 20, 128 << 20, 1 << 30
"""Input of a map task of the shuffle. A worker needs several times as much and keeps it, so memory
stays flat only where tasks do not grow with the data: with Ray's 1 GiB 100M rows took 4.2 GiB, with
128 MiB 2.3 GiB and no longer."""
MAX_MAP_TASKS = 1_000
"""Every map task makes a shard for every partition: past so many tasks they grow instead."""


@dataclass(frozen=True)
class Job:
    """What a worker must know: where to write, the rules, and the items' ids in index order.

    `optional` are the columns beside user, item, time and event that the source has.
    """

    uri: str
    config: PrepareConfig
    item_ids: ray.ObjectRef
    optional: tuple[str, ...]
    latest: int
    user_key: bytes | None

    def __repr__(self) -> str:
        return f"Job({self.uri})"  # without the key

    @property
    def catalogue(self) -> pl.DataFrame:
        """item_id and item_index of every item."""
        ids = pl.Series(schema.ITEM_ID, ray.get(self.item_ids), pl.String)
        indexes = pl.Series(schema.ITEM_INDEX, np.arange(len(ids), dtype=np.int32))
        return pl.DataFrame([ids, indexes])


@dataclass(frozen=True)
class Written:
    """What the workers wrote: files, counts over all blocks, and (N,) train events an item.

    `targets` are the events that training windows predict.
    """

    files: list[FileEntry]
    rows: dict[str, int]
    targets: int
    users: int
    kept: int
    dropped: dict[str, int]
    popularity: np.ndarray
    plan: SplitPlan
    profile: Profile


def clean_source(source: Source, job: Job) -> ray.data.Dataset:
    """The cleaned events of raw files; bad rows go to quarantine.

    Tasks read the pieces that the footers tell of. `ray.data.read_parquet` would read the footers
    once more, in actors of its own, and add the path to each row.
    """
    fs, columns = source.fs, source.columns

    def read_and_clean(batch: pa.Table) -> pa.Table:
        pieces = [Piece(**row) for row in batch.to_pylist()]
        blocks = [clean_block(read_piece(fs, p, columns), job, p.path) for p in pieces]
        return pa.concat_tables(blocks)

    pieces = [asdict(piece) for piece in source.pieces]
    return ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
        read_and_clean, batch_size=None, batch_format="pyarrow"
    )


def clean_block(block: pa.Table, job: Job, source_file: str | None = None) -> pa.Table:
    """Write bad rows to quarantine; the good ones become ids and numbers."""
    frame = normalise(block)
    if source_file is not None:
        frame = frame.with_columns(pl.lit(source_file).alias(schema.SOURCE_FILE))
    if job.user_key is not None:
        ids = pseudonymise(frame[schema.USER_ID].to_arrow(), job.user_key)
        frame = frame.with_columns(pl.Series(schema.USER_ID, ids))
    derived = with_indexes(frame, job.catalogue, job.config, job.latest)
    good, bad = apply_rules(derived, rules_for(job.config.split.strategy))
    if len(bad):
        write_part(job.uri, QUARANTINE, bad.to_arrow())
    return _plain_events(good, job.optional)


def _plain_events(good: pl.DataFrame, optional: tuple[str, ...]) -> pa.Table:
    """Numbers without nulls: what is unknown has a stand-in, so that equal rows compare equal."""
    value = pl.col(schema.VALUE).fill_nan(None).fill_null(float(NO_VALUE))
    chosen = {
        schema.ORDER: pl.col(schema.ORDER).fill_null(0),
        schema.VALUE: value,
        schema.SPLIT: pl.col(SPLIT_INDEX).fill_null(0).alias(SPLIT_INDEX),
    }
    return good.select(
        pl.col(schema.USER_ID),
        pl.col(schema.ITEM_INDEX),
        pl.col("seconds").fill_null(schema.UNKNOWN_TIME).alias(schema.TIMESTAMP),
        pl.col(EVENT_INDEX).fill_null(0),
        *(chosen[name] for name in optional),
        pl.lit(1, pl.Int32).alias(COPIES),
    ).to_arrow(compat_level=pl.CompatLevel.oldest())


def write_histories(events: ray.data.Dataset, job: Job, num_rows: int, num_items: int) -> Written:
    """Shuffle cleaned events by user and write the dataset's parts."""
    config = job.config
    partitions = config.num_partitions or max(2, -(-num_rows * ROW_BYTES // PARTITION_BYTES))
    whole = events.repartition(partitions, keys=[schema.USER_ID]).map_batches(
        lambda block: sort_block(block, job), batch_size=None, batch_format="pyarrow"
    )
    if _looks_ahead(config):
        whole = whole.materialize()
    core = find_core(whole, config, num_items)
    plan = plan_split(config.split, measure_times(whole, config.split, core))
    done = whole.map_batches(
        lambda block: write_block(block, job, plan, core),
        batch_size=None,
        batch_format="pyarrow",
    ).take_all()
    return _sum_up(done, plan, num_items)


def _looks_ahead(config: PrepareConfig) -> bool:
    """Whether something must be known of all events before any is written."""
    in_core = max(config.min_user_events, config.min_item_events) > 1
    return in_core or config.split.strategy in BY_TIME


@contextmanager
def shuffle_settings(num_rows: int) -> Iterator[None]:
    """Ray Data's settings for a shuffle of this size; a dataset takes them when it is made.

    A map task gets its share of the input, so that all cores work, and at most `USUAL_MAP_BYTES`;
    more only where there would be more than `MAX_MAP_TASKS`. Where the events do not fit the object
    store beside their shards, the shuffle goes through files.
    """
    context, cluster = ray.data.DataContext.get_current(), ray.cluster_resources()
    num_bytes = num_rows * ROW_BYTES
    a_task = num_bytes // (2 * max(1, int(cluster.get("CPU", 1))))
    usual = min(max(a_task, MIN_MAP_BYTES), USUAL_MAP_BYTES)
    wanted = {
        "shuffle_input_batch_bytes": min(max(usual, num_bytes // MAX_MAP_TASKS), MAX_MAP_BYTES),
        "shuffle_compression": "lz4",
        "use_disk_based_hash_shuffle": 2 * num_bytes > cluster.get("object_store_memory", 0),
    }
    before = {name: getattr(context, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def sort_block(block: pa.Table, job: Job) -> pa.Table:
    """Sorted, distinct events of whole users; robots go to quarantine."""
    events = sort_events(block)
    limit = job.config.max_events_per_day
    if limit is None:
        return events
    busiest = busiest_days(events)
    robots = events.filter(pa.array(busiest > limit))
    if len(robots):
        values = busiest[busiest > limit]
        write_part(job.uri, QUARANTINE, _as_raw(robots, values, job).to_arrow())
    return events.filter(pa.array(busiest <= limit))


def _as_raw(events: pa.Table, values: np.ndarray, job: Job) -> pl.DataFrame:
    """Cleaned events as raw rows in quarantine, each as often as it was read."""
    frame = pl.DataFrame(pl.from_arrow(events)).with_columns(pl.Series(schema.RULE_VALUE, values))
    names = {
        EVENT_INDEX: (schema.EVENT, job.config.events),
        SPLIT_INDEX: (schema.SPLIT, schema.SPLITS),
    }
    named = [
        pl.col(index).replace_strict(dict(enumerate(words)), return_dtype=pl.String).alias(name)
        for index, (name, words) in names.items()
        if index in frame.columns
    ]
    stand_ins = {schema.TIMESTAMP: schema.UNKNOWN_TIME, schema.VALUE: NO_VALUE}
    known = [
        pl.col(name).replace(stand_in, None)
        for name, stand_in in stand_ins.items()
        if name in frame.columns
    ]
    raw = (
        frame.with_columns(*named, *known)
        .join(job.catalogue, on=schema.ITEM_INDEX, how="left", maintain_order="left")
        .select(pl.all().repeat_by(COPIES).explode())
    )
    value = raw[schema.RULE_VALUE].cast(pl.String)
    return with_rule(normalise(raw.to_arrow()), pl.lit(ROBOT), value)


def write_block(block: pa.Table, job: Job, plan: SplitPlan, core: Core | None) -> pa.Table:
    """Write one block of whole users as events, train, valid and test files."""
    config = job.config
    events = block if core is None else core.keep(block)
    gap = config.session_gap_minutes
    sequences = to_sequences(events, None if gap is None else 60 * gap, config.keep_values)
    split = assign_split(sequences, plan)
    newest = config.long_histories == "newest"
    tables = {
        "train": train_windows(sequences, split, config.max_history, newest),
        "valid": held_out_rows(sequences, split, VALID, plan, config.longest_history),
        "test": held_out_rows(sequences, split, TEST, plan, config.longest_history),
        EVENTS: block,
    }
    entries = [write_part(job.uri, name, table) for name, table in tables.items() if len(table)]
    copies = block[COPIES].to_numpy()
    summary = {
        "files": [entry.model_dump() for entry in entries],
        "rows": {name: len(tables[name]) for name in schema.SPLITS},
        "targets": count_targets(tables["train"]),
        "users": len(user_starts(events)),
        "kept": len(events),
        "duplicates": int(copies.sum()) - len(block),
        "not_in_core": len(block) - len(events),
        "profile": profile_sequences(sequences, config.events).model_dump(),
    }
    items, counts = np.unique(sequences.item_indexes[split == TRAIN], return_counts=True)
    return pa.table({"summary": [json.dumps(summary)], "items": [items], "counts": [counts]})


def write_part(uri: str, folder: str, table: pa.Table) -> FileEntry:
    """Write a file named by its content, so that a retried task writes the same file again."""
    content = parquet_bytes(table)
    name = hashlib.sha256(content).hexdigest()[:16]
    return write_file(uri, f"{folder}/{name}.parquet", content)


def _sum_up(done: list[dict], plan: SplitPlan, num_items: int) -> Written:
    popularity = np.zeros(num_items, dtype=np.int64)
    for row in done:
        popularity[np.array(row["items"], int)] += np.array(row["counts"], int)
    summaries = [json.loads(row["summary"]) for row in done]

    def total(name: str) -> int:
        return sum(summary[name] for summary in summaries)

    return Written(
        files=[FileEntry(**entry) for summary in summaries for entry in summary["files"]],
        rows={part: sum(s["rows"][part] for s in summaries) for part in schema.SPLITS},
        targets=total("targets"),
        users=total("users"),
        kept=total("kept"),
        dropped={"duplicates": total("duplicates"), "k_core": total("not_in_core")},
        popularity=popularity,
        plan=plan,
        profile=merge_profiles([Profile.model_validate(s["profile"]) for s in summaries]),
    )

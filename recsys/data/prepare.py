"""The prepare stage: raw interactions and items -> `dataset` artifact.

One pass of row rules, one shuffle by user, one pass that writes the splits. Workers write their
own files; the driver sees file entries and counts, and arrays as long as the catalogue.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import ray

from recsys import schema
from recsys.artifact import (
    Artifact,
    ArtifactWriter,
    FileEntry,
    filesystem,
    parquet_bytes,
    write_file,
)
from recsys.config import PrepareConfig
from recsys.data.eval_rows import find_eval_rows, read_eval_rows
from recsys.data.history import EVENT_INDEX, SPLIT_INDEX, build_sequences
from recsys.data.quality import (
    apply_rules,
    check_counts,
    check_items,
    check_share,
    count_reasons,
    interaction_rules,
    normalise,
)
from recsys.data.sources import INTERACTION_COLUMNS, ITEM_COLUMNS, Source, find_source
from recsys.data.split import (
    TEST,
    VALID,
    SplitPlan,
    assign_split,
    held_out_rows,
    plan_split,
    train_windows,
)
from recsys.data.tokenize import load_tokenizer, with_tokens
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary

PARTITION_BYTES = 64 << 20
"""Input bytes a shuffle partition; a reducer needs about three times as much memory."""
NO_VALUE = np.finfo(np.float32).min
TOKENIZE_BATCH = 1024

log = logging.getLogger(__name__)


def prepare(config: PrepareConfig, backbone: str, data: str, output: str) -> Artifact:
    """Read `interactions` and `items` (and `eval_rows`, if any) under `data`; write a dataset.

    Raises:
        ValueError: a file or column does not fit, or too many rows are bad. No dataset is
            visible then.
    """
    interactions = find_source(data, "interactions", INTERACTION_COLUMNS)
    items = find_source(data, "items", ITEM_COLUMNS)
    _check_split_column(config, interactions, data)
    writer = ArtifactWriter(output, "dataset")
    catalogue, item_counts = _prepare_items(items, config, backbone, writer)
    vocabulary = ItemVocabulary(catalogue[schema.ITEM_ID])
    facts, popularity = _prepare_interactions(interactions, vocabulary, config, writer)
    facts["rows"] |= _prepare_eval_rows(data, vocabulary, config, writer)
    quality = {"interactions": facts.pop("counts"), "items": item_counts}
    catalogue = catalogue.append_column(schema.TRAIN_COUNT, pa.array(popularity))
    writer.add_table("items.parquet", catalogue)
    writer.add_json("quality.json", quality)
    parents = {"interactions": interactions.fingerprint, "items": items.fingerprint}
    resolved = {"prepare": config.model_dump(mode="json"), "backbone": backbone}
    return writer.publish(resolved, parents, facts | {"num_items": len(catalogue)})


def input_fingerprints(data: str) -> dict[str, str]:
    """What a dataset of `data` names as its parents."""
    tables = {"interactions": INTERACTION_COLUMNS, "items": ITEM_COLUMNS}
    return {name: find_source(data, name, columns).fingerprint for name, columns in tables.items()}


def _check_split_column(config: PrepareConfig, source: Source, data: str) -> None:
    if config.split.strategy == "column" and schema.SPLIT not in source.columns:
        raise ValueError(
            f"{data}: prepare.split.strategy is 'column' but interactions have no 'split' column"
        )


def _prepare_items(
    source: Source, config: PrepareConfig, backbone: str, writer: ArtifactWriter
) -> tuple[pa.Table, dict]:
    """The tokenised catalogue in index order; bad rows go to quarantine."""
    raw = pq.ParquetDataset(source.paths, filesystem=source.fs).read(columns=source.columns)
    raw = raw.set_column(
        raw.column_names.index(schema.ITEM_ID),
        schema.ITEM_ID,
        raw[schema.ITEM_ID].cast(pa.large_string()),
    )
    good, bad, duplicates = check_items(raw)
    counts = _counts(source.num_rows, len(good), len(bad), duplicates, count_reasons(bad))
    _settle("items", counts, config, bad, writer)
    indexed = good.append_column(schema.ITEM_INDEX, pa.array(np.arange(len(good), dtype=np.int32)))
    return _tokenize_items(indexed, config, backbone), counts


def _tokenize_items(items: pa.Table, config: PrepareConfig, backbone: str) -> pa.Table:
    def tokenize_block(block: pa.Table) -> pa.Table:
        return with_tokens(
            block, load_tokenizer(backbone), config.text_fields, config.max_item_tokens
        )

    dataset = ray.data.from_arrow(items).map_batches(
        tokenize_block, batch_size=TOKENIZE_BATCH, batch_format="pyarrow"
    )
    blocks = list(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    return pa.concat_tables(blocks).sort_by(schema.ITEM_INDEX).combine_chunks()


def _prepare_interactions(
    source: Source, vocabulary: ItemVocabulary, config: PrepareConfig, writer: ArtifactWriter
) -> tuple[dict, np.ndarray]:
    """Write train, valid and test rows; returns facts and each item's number of train events."""
    histories = _shuffle_by_user(source, vocabulary, config, writer.uri).materialize()
    newest = histories.max(schema.TIMESTAMP)
    plan = plan_split(config.split, newest if isinstance(newest, int) else schema.UNKNOWN_TIME)
    uri, max_history = writer.uri, config.max_history

    def write_block(block: pa.Table) -> pa.Table:
        return _write_splits(block, plan, max_history, uri)

    done = histories.map_batches(write_block, batch_size=None, batch_format="pyarrow").take_all()
    popularity = np.zeros(len(vocabulary), dtype=np.int64)
    for row in done:
        popularity[row["items"]] += row["counts"]
    summaries = [json.loads(row["summary"]) for row in done]
    for summary in summaries:
        writer.add_entries([FileEntry(**entry) for entry in summary["files"]])
    return _summarise(source, summaries, plan, config, writer), popularity


def _shuffle_by_user(
    source: Source, vocabulary: ItemVocabulary, config: PrepareConfig, uri: str
) -> ray.data.Dataset:
    """Clean interactions, each block holding all events of its users."""
    shared = ray.put(vocabulary)
    columns, events = source.columns, config.events
    strategy = config.split.strategy

    def clean(block: pa.Table) -> pa.Table:
        return _clean_block(block, columns, ray.get(shared), events, strategy, uri)

    partitions = config.num_partitions or max(2, -(-source.num_bytes // PARTITION_BYTES))
    return (
        ray.data.read_parquet(source.paths, filesystem=source.fs)
        .select_columns(columns)
        .map_batches(clean, batch_size=None, batch_format="pyarrow")
        .repartition(partitions, keys=[schema.USER_ID])
    )


def _clean_block(
    block: pa.Table,
    columns: list[str],
    vocabulary: ItemVocabulary,
    events: tuple[str, ...],
    strategy: str,
    uri: str,
) -> pa.Table:
    """Write bad rows to quarantine; the good ones become ids and numbers."""
    table = normalise(block, columns)
    indexes = vocabulary.indexes_of(table[schema.ITEM_ID].to_pylist())
    rules = interaction_rules(lambda _: pa.array(indexes != UNKNOWN), events, strategy)
    numbered = table.append_column(schema.ITEM_INDEX, pa.array(indexes))
    good, bad = apply_rules(numbered, rules)
    if len(bad):
        _write_part(uri, "quarantine/interactions", bad.drop_columns([schema.ITEM_INDEX]))
    return pa.table(
        {
            schema.USER_ID: good[schema.USER_ID],
            schema.ITEM_INDEX: good[schema.ITEM_INDEX],
            schema.TIMESTAMP: pc.fill_null(good[schema.TIMESTAMP], schema.UNKNOWN_TIME),
            schema.ORDER: pc.fill_null(good[schema.ORDER], 0),
            schema.VALUE: _plain_values(good[schema.VALUE]),
            EVENT_INDEX: _positions(good[schema.EVENT], events),
            SPLIT_INDEX: _positions(good[schema.SPLIT], schema.SPLITS),
        }
    )


def _plain_values(values: pa.ChunkedArray) -> pa.Array:
    """Values with one stand-in for null and NaN, so that equal rows compare equal."""
    plain = values.fill_null(NO_VALUE).to_numpy()
    return pa.array(np.where(np.isnan(plain), NO_VALUE, plain))


def _positions(column: pa.ChunkedArray, names: tuple[str, ...]) -> pa.Array:
    found = pc.index_in(column, pa.array(names, pa.large_string()))
    return pc.fill_null(found, 0).cast(pa.int8())


def _write_splits(block: pa.Table, plan: SplitPlan, max_history: int, uri: str) -> pa.Table:
    """Write one block of whole users as train, valid and test files."""
    sequences, duplicates = build_sequences(block)
    split = assign_split(sequences, plan)
    tables = {
        "train": train_windows(sequences, split, max_history),
        "valid": held_out_rows(sequences, split, VALID, plan, max_history),
        "test": held_out_rows(sequences, split, TEST, plan, max_history),
    }
    entries = [_write_part(uri, name, table) for name, table in tables.items() if len(table)]
    summary = {
        "files": [entry.model_dump() for entry in entries],
        "rows": {name: len(table) for name, table in tables.items()},
        "users": len(sequences.user_ids),
        "kept": sequences.num_events,
        "dropped_duplicates": duplicates,
    }
    items, counts = np.unique(sequences.item_indexes[split == 0], return_counts=True)
    return pa.table({"summary": [json.dumps(summary)], "items": [items], "counts": [counts]})


def _write_part(uri: str, folder: str, table: pa.Table) -> FileEntry:
    """Write a file named by its content, so that a retried task writes the same file again."""
    content = parquet_bytes(table)
    name = hashlib.sha256(content).hexdigest()[:16]
    return write_file(uri, f"{folder}/{name}.parquet", content)


def _summarise(
    source: Source,
    summaries: list[dict],
    plan: SplitPlan,
    config: PrepareConfig,
    writer: ArtifactWriter,
) -> dict:
    def total(key: str) -> int:
        return sum(summary[key] for summary in summaries)

    bad = _read_quarantine(writer)
    counts = _counts(
        source.num_rows, total("kept"), len(bad), total("dropped_duplicates"), count_reasons(bad)
    )
    _settle("interactions", counts, config, bad.slice(0, 0), writer)
    return {
        "num_users": total("users"),
        "rows": {part: sum(s["rows"][part] for s in summaries) for part in schema.SPLITS},
        "split": {
            "strategy": plan.strategy,
            "valid_from": plan.valid_from,
            "test_from": plan.test_from,
        },
        "counts": counts,
    }


def _read_quarantine(writer: ArtifactWriter) -> pa.Table:
    """The reasons of all quarantined interactions; takes the files into the artifact."""
    fs, root = filesystem(writer.uri)
    folder = "quarantine/interactions"
    selector = pafs.FileSelector(f"{root}/{folder}", allow_not_found=True)
    reasons = [pa.table({schema.REASON: pa.array([], pa.string())})]
    written = [i for i in fs.get_file_info(selector) if i.path.endswith(".parquet")]
    for info in written:
        with fs.open_input_file(info.path) as stream:
            content = stream.read()
        digest = hashlib.sha256(content).hexdigest()
        entry = FileEntry(path=f"{folder}/{info.base_name}", size=len(content), sha256=digest)
        writer.add_entries([entry])
        reasons.append(pq.read_table(pa.BufferReader(content), columns=[schema.REASON]))
    return pa.concat_tables(reasons)


def _prepare_eval_rows(
    data: str, vocabulary: ItemVocabulary, config: PrepareConfig, writer: ArtifactWriter
) -> dict[str, int]:
    """Put the data's own evaluation rows, if any, in place of the split's."""
    path = find_eval_rows(data)
    if path is None or config.split.strategy != "column":
        return {}
    tables, bad = read_eval_rows(path, vocabulary, config.max_history)
    if len(bad):
        writer.add_table("quarantine/eval_rows.parquet", bad)
    for part, table in tables.items():
        writer.drop(f"{part}/")
        writer.add_table(f"{part}/eval_rows.parquet", table)
    log.info("eval_rows: %d rows kept, %d quarantined", sum(map(len, tables.values())), len(bad))
    return {part: len(table) for part, table in tables.items()}


def _counts(read: int, kept: int, quarantined: int, duplicates: int, reasons: dict) -> dict:
    return {
        "read": read,
        "kept": kept,
        "quarantined": quarantined,
        "dropped_duplicates": duplicates,
        "reasons": reasons,
    }


def _settle(
    table: str, counts: dict, config: PrepareConfig, bad: pa.Table, writer: ArtifactWriter
) -> None:
    log.info(
        "%s: %d read = %d kept + %d quarantined %s + %d duplicates dropped",
        table,
        counts["read"],
        counts["kept"],
        counts["quarantined"],
        counts["reasons"] or "",
        counts["dropped_duplicates"],
    )
    check_counts(table, counts)
    check_share(table, counts, config.max_quarantine_share)
    if len(bad):
        writer.add_table(f"quarantine/{table}.parquet", bad)

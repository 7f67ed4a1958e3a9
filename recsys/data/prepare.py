"""The prepare stage: raw interactions and items -> `dataset` artifact. Read it top to bottom."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import ray

from recsys import schema
from recsys.artifact import INPUTS, Artifact, ArtifactWriter
from recsys.config import PrepareConfig
from recsys.data.drift import compare_profiles
from recsys.data.eval_rows import find_eval_rows, read_eval_rows
from recsys.data.incremental import Inputs, check_continues, previous_events, read_inputs
from recsys.data.interactions import (
    QUARANTINE,
    Job,
    Written,
    clean_source,
    shuffle_settings,
    write_histories,
)
from recsys.data.item_rules import check_items
from recsys.data.items import number_items, read_items, start_tokenizing
from recsys.data.privacy import check_same_key, key_fingerprint
from recsys.data.profile import ItemProfile, Profile, profile_items
from recsys.data.quality import ADVICE, check_counts, check_shares, merge_summaries, summarise
from recsys.data.quality_page import render_quality
from recsys.data.sources import (
    INTERACTION_COLUMNS,
    ITEM_COLUMNS,
    Source,
    find_source,
    fingerprint_of,
    list_files,
)
from recsys.data.users import TABLE as USERS
from recsys.data.users import has_users, write_users
from recsys.data.vocabulary import ItemVocabulary

CLOCK_SLACK_S = 86_400
"""A timestamp may be a day ahead of this machine's clock: time zones, and clocks that differ."""
OPTIONAL = (schema.ORDER, schema.VALUE, schema.SPLIT)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Before:
    """The dataset that came before: items keep their indexes.

    With `incremental` its events are taken over, and only files that are new are read.
    """

    dataset: Artifact
    incremental: bool = False


def prepare(
    config: PrepareConfig,
    backbone: str,
    data: str,
    output: str,
    before: Before | None = None,
    user_key: bytes | None = None,
) -> Artifact:
    """Read `interactions` and `items` (and `eval_rows`, `users`) under `data`; write a dataset.

    With a `user_key` user ids become pseudonyms as soon as they are read.

    Raises:
        ValueError: a file or column does not fit, too many rows are bad, or the dataset before
            does not fit. No dataset is visible then.
    """
    resolved = {"prepare": config.model_dump(mode="json"), "backbone": backbone}
    inputs = _inputs_before(before, resolved, data, user_key)
    interactions = find_source(data, "interactions", INTERACTION_COLUMNS, inputs.files)
    items = find_source(data, "items", ITEM_COLUMNS)
    columns = inputs.columns or interactions.columns
    _check_columns(config, interactions, columns, data)
    writer = ArtifactWriter(output, "dataset")

    catalogue, item_counts = _prepare_items(items, config, before, writer)
    job = Job(
        uri=writer.uri,
        config=config,
        item_ids=ray.put(catalogue[schema.ITEM_ID].combine_chunks()),
        optional=tuple(name for name in OPTIONAL if name in columns),
        latest=int(time.time()) + CLOCK_SLACK_S,
        user_key=user_key,
    )
    tokenising = start_tokenizing(catalogue, config, backbone)  # beside the interactions
    written = _write_interactions(interactions, before, job, inputs, len(catalogue))
    writer.add_entries(written.files)
    num_read = inputs.num_rows + interactions.num_rows
    counts = _count_interactions(num_read, written, config, writer)
    eval_counts, rows = _prepare_eval_rows(data, catalogue, config, written, user_key, writer)
    user_counts = write_users(data, config.user_columns, user_key, writer)
    for name, of_users in user_counts.items():
        _settle(name, of_users, config)

    tokenised = pa.concat_tables(ray.get(tokenising)).combine_chunks()
    tokenised = tokenised.append_column(schema.TRAIN_COUNT, pa.array(written.popularity))
    writer.add_table("items.parquet", tokenised)
    written_ns = max(file.changed_ns for file in items.files)
    seen = Inputs(interactions.files, num_read, columns, written_ns)
    writer.add_json(INPUTS, seen.to_json())
    facts = _facts(written, rows, counts, tokenised, user_key)
    tables = {"interactions": counts, "items": item_counts} | eval_counts | user_counts
    warnings = _unit_warnings(interactions)
    _report(tables, warnings, facts, tokenised, written, config, before, writer)
    return writer.publish(resolved, input_fingerprints(data, before, user_key), facts)


def input_fingerprints(
    data: str, before: Before | None = None, user_key: bytes | None = None
) -> dict[str, str]:
    """What a dataset of `data` names as its parents."""
    tables = ("interactions", "items", *([USERS] if has_users(data) else []))
    parents = {name: fingerprint_of(list_files(data, name)) for name in tables}
    if before is not None:
        parents["previous"] = before.dataset.digest
    if user_key is not None:
        parents["user_key"] = key_fingerprint(user_key)
    return parents


def _inputs_before(
    before: Before | None, resolved: dict, data: str, user_key: bytes | None
) -> Inputs:
    """What need not be read again."""
    if before is None:
        return Inputs([], 0, [])
    check_same_key(before.dataset.manifest.facts.get("user_key"), user_key)
    if not before.incremental:
        return Inputs([], 0, [])
    check_continues(before.dataset, resolved, list_files(data, "interactions"))
    return read_inputs(before.dataset)


def _check_columns(config: PrepareConfig, source: Source, columns: list[str], data: str) -> None:
    if config.split.strategy == "column" and schema.SPLIT not in columns:
        raise ValueError(
            f"{data}: prepare.split.strategy is 'column' but interactions have no 'split' column"
        )
    if source.paths and source.columns != columns:
        raise ValueError(
            f"{source.paths[0]} has columns {source.columns}, but the dataset before was made "
            f"from {columns}: prepare in full, without --incremental"
        )


def _prepare_items(
    source: Source, config: PrepareConfig, before: Before | None, writer: ArtifactWriter
) -> tuple[pa.Table, dict]:
    """The catalogue in index order; bad rows go to quarantine."""
    checked = check_items(read_items(source), config)
    bad = pl.DataFrame(pl.from_arrow(checked.bad))
    rules, examples = merge_summaries([summarise(bad)])
    counts = {
        "read": source.num_rows,
        "kept": len(checked.good),
        "quarantined": len(bad),
        "dropped": {"duplicates": checked.duplicates},
        "reasons": rules,
        "examples": examples,
        "warnings": checked.warnings,
    }
    _settle("items", counts, config)
    if len(bad):
        writer.add_table("quarantine/items.parquet", checked.bad)
    previous = before.dataset.read_table("items.parquet") if before else None
    return number_items(checked.good, previous), counts


def _write_interactions(
    source: Source, before: Before | None, job: Job, inputs: Inputs, num_items: int
) -> Written:
    num_rows = inputs.num_rows + source.num_rows
    with shuffle_settings(num_rows):
        parts = [clean_source(source, job)] if source.paths else []
        if before is not None and before.incremental:
            parts += previous_events(before.dataset, job)
        events = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
        return write_histories(events, job, num_rows, num_items)


def _count_interactions(
    num_read: int, written: Written, config: PrepareConfig, writer: ArtifactWriter
) -> dict:
    """Counts that add up, each taken on its own: footers, quarantine files, histories."""
    rules, examples = _take_in_quarantine(writer)
    counts = {
        "read": num_read,
        "kept": written.kept,
        "quarantined": sum(rules.values()),
        "dropped": written.dropped,
        "reasons": rules,
        "examples": examples,
        "warnings": {},
    }
    _settle("interactions", counts, config)
    return counts


def _take_in_quarantine(writer: ArtifactWriter) -> tuple[dict[str, int], dict[str, list[dict]]]:
    """Take the workers' quarantine files into the artifact; counts by rule, and examples."""

    def summary_of(name: str) -> Any:
        return summarise(pl.read_parquet(writer.read_bytes(name)))

    names = writer.adopt(QUARANTINE)
    with ThreadPoolExecutor(8) as pool:
        return merge_summaries(pool.map(summary_of, names))


def _prepare_eval_rows(
    data: str,
    catalogue: pa.Table,
    config: PrepareConfig,
    written: Written,
    user_key: bytes | None,
    writer: ArtifactWriter,
) -> tuple[dict[str, dict], dict[str, int]]:
    """Put the data's own evaluation rows, if any, in place of the split's."""
    path = find_eval_rows(data)
    if path is None or config.split.strategy != "column":
        return {}, written.rows
    vocabulary = ItemVocabulary(catalogue[schema.ITEM_ID])
    tables, bad = read_eval_rows(
        path, vocabulary, config.longest_history, user_key, config.keep_values
    )
    if len(bad):
        writer.add_table("quarantine/eval_rows.parquet", bad)
    for part, table in tables.items():
        writer.drop(f"{part}/")
        writer.add_table(f"{part}/eval_rows.parquet", table)
    kept = {part: len(table) for part, table in tables.items()}
    counts = {
        "read": sum(kept.values()) + len(bad),
        "kept": sum(kept.values()),
        "quarantined": len(bad),
        "dropped": {},
        "reasons": dict(pl.Series(bad[schema.RULE]).value_counts().iter_rows()),
        "examples": {},
        "warnings": {},
    }
    _tell("eval_rows", counts)
    return {"eval_rows": counts}, written.rows | kept


def _facts(
    written: Written, rows: dict, counts: dict, items: pa.Table, user_key: bytes | None
) -> dict[str, Any]:
    """What other stages need to know of a dataset without reading it."""
    plan = written.plan
    split = {"strategy": plan.strategy, "valid_from": plan.valid_from, "test_from": plan.test_from}
    return {
        "num_users": written.users,
        "num_items": len(items),
        "rows": rows,
        "train_targets": written.targets,
        "split": split,
        "user_key": None if user_key is None else key_fingerprint(user_key),
    }


def _unit_warnings(source: Source) -> dict[str, list[str]]:
    """Files whose timestamps are not, or not all, in seconds."""
    if set(source.time_units) <= {"s"}:
        return {}
    return {f"timestamps in {unit}": files for unit, files in sorted(source.time_units.items())}


def _report(
    tables: dict[str, dict],
    warnings: dict[str, list[str]],
    facts: dict,
    items: pa.Table,
    written: Written,
    config: PrepareConfig,
    before: Before | None,
    writer: ArtifactWriter,
) -> None:
    """Write quality.json and the page that shows it."""
    k = config.min_published_count
    profile = written.profile.published(k)
    item_profile = profile_items(items, written.popularity).published(k)
    quality = {
        "tables": {
            name: counts | {"advice": {rule: ADVICE[rule] for rule in counts["reasons"]}}
            for name, counts in tables.items()
        },
        "files": warnings,
        "profile": profile.model_dump(),
        "items_profile": item_profile.model_dump(),
        "drift": compare_profiles((profile, item_profile), _profiles_before(before)),
        "split": facts["split"] | {"rows": facts["rows"]},
        "settings": config.model_dump(mode="json"),
    }
    writer.add_json("quality.json", quality)
    writer.add_bytes("quality.html", render_quality(quality).encode())


def _profiles_before(before: Before | None) -> tuple[Profile, ItemProfile] | None:
    if before is None:
        return None
    told = before.dataset.read_json("quality.json")
    return Profile(**told["profile"]), ItemProfile(**told["items_profile"])


def _settle(table: str, counts: dict, config: PrepareConfig) -> None:
    _tell(table, counts)
    check_counts(table, counts)
    check_shares(table, counts, config.max_quarantine_share, config.max_rule_shares)


def _tell(table: str, counts: dict) -> None:
    dropped = " + ".join(f"{n} {why}" for why, n in counts["dropped"].items() if n) or "0"
    log.info(
        "%s: %d read = %d kept + %d quarantined %s + dropped: %s",
        *(table, counts["read"], counts["kept"], counts["quarantined"]),
        *(counts["reasons"] or "", dropped),
    )

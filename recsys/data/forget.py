"""Deletion of users: from a dataset, into a new one without them; from feedback; from a store.

A dataset from which users were forgotten is the one that `prepare` would have made without their
rows: it has the same digest. Three things stay as they were when the data was prepared: the counts
of quality.json, which are those of many users together; the cuts of a split by time, also where the
newest event was a forgotten user's; and the k-core, also where it would now be smaller.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict

from recsys import schema
from recsys.artifact import (
    INPUTS,
    Artifact,
    ArtifactWriter,
    FileEntry,
    find_manifest,
    parquet_bytes,
    write_file,
)
from recsys.config import PrepareConfig, StoreConfig
from recsys.data.history import COPIES, to_sequences, user_starts
from recsys.data.interactions import EVENTS, QUARANTINE
from recsys.data.lookahead import Core
from recsys.data.privacy import check_same_key, pseudonymise
from recsys.data.quality_page import render_quality
from recsys.data.split import TRAIN, SplitPlan, assign_split, count_targets
from recsys.data.user_rows import (
    THREADS,
    Removal,
    count_rows,
    divide,
    forget_in_folder,
    users_of,
)
from recsys.storage import filesystem, steady_filesystem, write_bytes
from recsys.store.histories import HistoryStore
from recsys.store.open import open_store

ITEMS, QUALITY, PAGE = "items.parquet", "quality.json", "quality.html"
ANY_AGE = 100_000
"""Days that no event is old: 1970 is less than that ago until the year 2243."""


class Receipt(BaseModel):
    """What was deleted where. Holds no user id: `users` are pseudonyms, or sha256 without a key.

    `still_hold` are the artifacts beside the dataset that were made from it, or from others made
    from it, or that cannot be read: what they learned of the users is gone once they are made
    again from the new dataset and deleted. `remaining_rows` was counted in the new dataset's files.
    `feedback` are the files of events that lost rows, and `store_events` the events deleted from
    the store of histories, None where no store was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    requested_at: str
    users: list[str]
    hashed_with: str
    users_found: int
    old_dataset: str
    old_digest: str
    new_dataset: str
    new_digest: str
    removed: list[Removal]
    train_events_removed: int
    remaining_rows: int
    still_hold: list[str]
    feedback: list[Removal] = []
    store_events: int | None = None


def forget_users(
    dataset: Artifact, user_ids: Sequence[str], output: str, key: bytes | None, requested_at: str
) -> tuple[Artifact, Receipt]:
    """Write a dataset without any row of these users; the old one stays as it is.

    `user_ids` are the company's, also where the dataset was made with a user `key`.
    `requested_at` is the time of the request, ISO 8601 in UTC.

    Raises:
        ValueError: no or an empty id is given, the key is not the dataset's, `output` overlaps the
            dataset, or the dataset is of an older release, which kept too little to delete from.
    """
    check_same_key(dataset.manifest.facts.get("user_key"), key)
    names = known_names(user_ids, key)
    _check_places(dataset, output)
    still_hold = made_from(dataset)
    writer = ArtifactWriter(output, "dataset")

    forgetting = _Forgetting(dataset, pa.array(names, pa.large_string()), writer.uri)
    others = [n for n in dataset.names() if n not in (ITEMS, INPUTS, QUALITY, PAGE)]
    with ThreadPoolExecutor(THREADS) as pool:
        losses = list(pool.map(forgetting.rewrite, others))
    writer.add_entries([loss.entry for loss in losses if loss.entry])
    loss = _sum_up(losses, dataset)
    _write_items(dataset, loss, writer)
    _write_reports(dataset, loss, writer)
    manifest = dataset.manifest
    made = writer.publish(manifest.config, manifest.parents, _facts(manifest.facts, loss))

    remaining = count_rows(made, names)
    if remaining:
        raise RuntimeError(f"{made.uri} still has {remaining} rows of forgotten users")
    receipt = Receipt(
        requested_at=requested_at,
        users=_unreadable(user_ids, key),
        hashed_with="sha256" if key is None else "user key",
        users_found=_num_found(names, loss, len(set(user_ids))),
        old_dataset=dataset.uri,
        old_digest=dataset.digest,
        new_dataset=made.uri,
        new_digest=made.digest,
        removed=loss.removals,
        train_events_removed=int(loss.train_events.sum()),
        remaining_rows=remaining,
        still_hold=still_hold if made.digest != dataset.digest else [],
    )
    return made, receipt


def open_to_forget(url: str, password: str | None) -> HistoryStore:
    """A store of histories that answers; events of any age are deleted and counted.

    Raises:
        ValueError: the URL is of no known form, or holds a password.
        StoreUnavailable: the store does not answer.
    """
    store = open_store(StoreConfig(url=url, ttl_days=ANY_AGE), password)
    # Asked now: nothing has been written yet.
    store.version("")
    return store


def forget_elsewhere(
    receipt: Receipt,
    user_ids: Sequence[str],
    key: bytes | None,
    feedback: str,
    store: HistoryStore | None,
) -> Receipt:
    """Delete the users from a folder of events and from a store of histories, where there are any.

    Either may know them by id or by pseudonym. Returns the receipt with what was deleted. Where it
    breaks off, the same may be done again.

    Raises:
        ValueError: a file is not whole Parquet, or cannot be read or written; names the file.
        StoreUnavailable: the store does not answer.
    """
    names = known_names(user_ids, key)
    files = forget_in_folder(feedback, names) if feedback else []
    events = None if store is None else sum(store.delete(name) for name in names)
    return receipt.model_copy(update={"feedback": files, "store_events": events})


def write_receipt(receipt: Receipt) -> str:
    """Write `<new dataset>-receipt.json`; returns where."""
    place = f"{receipt.new_dataset}-receipt.json"
    write_bytes(place, receipt.model_dump_json(indent=2).encode())
    return place


def known_names(user_ids: Sequence[str], key: bytes | None) -> list[str]:
    """What files may call these users: their ids, and their pseudonyms where there is a key.

    Raises:
        ValueError: there is no id, or an empty one.
    """
    if not user_ids or not all(user_ids):
        raise ValueError("the list of users to forget is empty or has an empty id: give their ids")
    names = sorted(set(user_ids))
    return names if key is None else names + pseudonymise(pa.array(names), key).to_pylist()


def _num_found(names: list[str], loss: _Loss, num_users: int) -> int:
    """Users of whom a file had a row, by one name or the other."""
    return sum(not loss.found.isdisjoint(names[n::num_users]) for n in range(num_users))


def _unreadable(user_ids: Sequence[str], key: bytes | None) -> list[str]:
    ids = sorted(set(user_ids))
    if key is not None:
        return sorted(pseudonymise(pa.array(ids), key).to_pylist())
    return sorted(hashlib.sha256(user_id.encode()).hexdigest() for user_id in ids)


def _check_places(dataset: Artifact, output: str) -> None:
    if INPUTS not in dataset.names():
        raise ValueError(
            f"{dataset.uri} has no {INPUTS}: an older release made it, which did not keep every "
            "event; prepare it again from raw data without these users"
        )
    old, new = _resolved(dataset.uri), _resolved(output)
    if old.is_relative_to(new) or new.is_relative_to(old):
        raise ValueError(f"{output} overlaps the dataset {dataset.uri}: choose another output")


def _resolved(uri: str) -> Path:
    fs, root = filesystem(uri)
    return Path(root).resolve() if isinstance(fs, pafs.LocalFileSystem) else Path(root)


def made_from(dataset: Artifact) -> list[str]:
    """The artifacts beside a dataset that were made from it, directly or through others.

    Those that cannot be read are named too.
    """
    manifests, unreadable = {}, []
    for uri in _siblings(dataset.uri):
        try:
            manifests[uri] = find_manifest(uri)
        except ValueError:
            unreadable.append(uri)
    digests, found = {dataset.digest}, set(unreadable)
    while True:
        new = {
            uri: manifest
            for uri, manifest in manifests.items()
            if manifest and uri not in found and digests & {*manifest.parents.values()}
        }
        if not new:
            return sorted(found)
        found |= set(new)
        digests |= {manifest.digest for manifest in new.values()}


def _siblings(uri: str) -> list[str]:
    fs, root = steady_filesystem(uri)
    parent, _, name = uri.rstrip("/").rpartition("/")
    infos = fs.get_file_info(pafs.FileSelector(root.rpartition("/")[0]))
    folders = [i.base_name for i in infos if i.type == pafs.FileType.Directory]
    return [f"{parent}/{folder}" if parent else folder for folder in folders if folder != name]


# Files


@dataclass
class _Loss:
    """What a file, or all of them, lost: `entry` is what is left of the file, if anything."""

    entry: FileEntry | None = None
    removals: list[Removal] = field(default_factory=list)
    found: set[str] = field(default_factory=set)
    train_events: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    train_targets: int = 0
    users: int = 0
    rows_read: int = 0

    def rows_in(self, folder: str) -> int:
        """Rows removed from the files of a folder."""
        return sum(r.rows for r in self.removals if r.path.startswith(f"{folder}/"))


class _Forgetting:
    """Rewrites the files of a dataset without some users; one for all threads."""

    def __init__(self, dataset: Artifact, names: pa.Array, output: str) -> None:
        self._dataset, self._names, self._output = dataset, names, output
        self._config = PrepareConfig.model_validate(dataset.manifest.config["prepare"])
        self._plan = SplitPlan(**dataset.manifest.facts["split"])
        self._core = _core_of(dataset, self._config)

    def rewrite(self, name: str) -> _Loss:
        """Write one file without the users' rows, or byte for byte where it has none."""
        content = self._dataset.read_bytes(name)
        divided = divide(content, self._names) if name.endswith(".parquet") else None
        if divided is None:
            return _Loss(write_file(self._output, name, content))
        left, removed = divided
        found = set(pc.unique(users_of(removed)).to_pylist())
        loss = _Loss(
            self._write(name, left, content), [Removal(path=name, rows=len(removed))], found
        )
        if name.startswith(f"{EVENTS}/"):
            self._add_events(removed, loss)
        if name.startswith("train/"):
            loss.train_targets = count_targets(removed)
        return loss

    def _write(self, name: str, left: pa.Table, before: bytes) -> FileEntry | None:
        if not len(left):
            return None
        content = parquet_bytes(_as_made(left))
        # Workers name a file by its content, so that a retried task writes the same file again.
        return write_file(
            self._output, name.replace(_content_name(before), _content_name(content)), content
        )

    def _add_events(self, removed: pa.Table, loss: _Loss) -> None:
        events = removed if self._core is None else self._core.keep(removed)
        gap = self._config.session_gap_minutes
        sequences = to_sequences(events, None if gap is None else 60 * gap)
        split = assign_split(sequences, self._plan)
        loss.train_events = np.bincount(sequences.item_indexes[split == TRAIN])
        loss.users = len(user_starts(events))
        loss.rows_read = pc.sum(removed[COPIES]).as_py()


def _as_made(table: pa.Table) -> pa.Table:
    """A table that was read, with the types of one that was made.

    Parquet's reader names the elements of lists otherwise than Arrow does, and files would differ.
    """

    def made(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_large_list(kind):
            return pa.large_list(kind.value_type)
        return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind

    return table.cast(pa.schema([(field.name, made(field.type)) for field in table.schema]))


def _content_name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _core_of(dataset: Artifact, config: PrepareConfig) -> Core | None:
    """The k-core that the dataset was made with, None where there is none.

    Its items are those with a train event or a held-out target, which is every event in it.
    """
    if max(config.min_user_events, config.min_item_events) == 1:
        return None
    alive = dataset.read_table(ITEMS, [schema.TRAIN_COUNT])[schema.TRAIN_COUNT].to_numpy() > 0
    for name in [*dataset.names("valid/"), *dataset.names("test/")]:
        targets = dataset.read_table(name, [schema.TARGETS])[schema.TARGETS]
        alive[pc.list_flatten(targets).to_numpy()] = True
    return Core(alive, config.min_user_events)


def _sum_up(losses: list[_Loss], dataset: Artifact) -> _Loss:
    total = _Loss(train_events=np.zeros(dataset.manifest.facts["num_items"], np.int64))
    for loss in losses:
        total.removals += loss.removals
        total.found |= loss.found
        total.train_events[: len(loss.train_events)] += loss.train_events
        total.train_targets += loss.train_targets
        total.users += loss.users
        total.rows_read += loss.rows_read
    return total


# What is told of all files together


def _facts(facts: dict[str, Any], loss: _Loss) -> dict[str, Any]:
    rows = {part: rows - loss.rows_in(part) for part, rows in facts["rows"].items()}
    left = {
        "num_users": facts["num_users"] - loss.users,
        "train_targets": facts["train_targets"] - loss.train_targets,
    }
    return facts | left | {"rows": rows}


def _write_items(dataset: Artifact, loss: _Loss, writer: ArtifactWriter) -> None:
    """The item table; each item's train events are those of the users who are left."""
    items = dataset.read_table(ITEMS)
    counts = items[schema.TRAIN_COUNT].to_numpy() - loss.train_events
    assert counts.min(initial=0) >= 0, "more train events removed than there were"
    place = items.column_names.index(schema.TRAIN_COUNT)
    counted = items.set_column(place, schema.TRAIN_COUNT, pa.array(counts))
    writer.add_table(ITEMS, _as_made(counted))


def _write_reports(dataset: Artifact, loss: _Loss, writer: ArtifactWriter) -> None:
    """The rows that an incremental run counts from, and the quality report."""
    inputs = dataset.read_json(INPUTS)
    inputs["num_rows"] -= loss.rows_read + loss.rows_in(QUARANTINE)
    writer.add_json(INPUTS, inputs)
    if not loss.rows_in("quarantine"):
        for name in (QUALITY, PAGE):
            writer.add_bytes(name, dataset.read_bytes(name))
        return
    quality = dataset.read_json(QUALITY)
    for name, counts in quality["tables"].items():
        # An example is a row without its user's id, so it may be a row of these users.
        counts["examples"] = counts["examples"] if name == "items" else {}
    writer.add_json(QUALITY, quality)
    writer.add_bytes(PAGE, render_quality(quality).encode())

"""Checkpoints for resume, as the ranks write and find them: ZeRO shards, the cursor and the log.

`recsys.training.shards` says what a whole checkpoint is. Loss scale, optimizer and learning-rate
schedule are in DeepSpeed's files; no random state is, as every draw follows from seed and step.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.fs as pafs
import ray.train
import torch

from recsys.models.build import LOG
from recsys.training.cursor import Cursor
from recsys.training.ranks import gather
from recsys.training.reshard import load_resharded, reshard
from recsys.training.shards import VERSION as SHARDS_VERSION
from recsys.training.shards import (
    Commit,
    ShardError,
    UnfinishedError,
    fetch,
    fetch_all,
    folder_name,
    list_checkpoints,
    read_commit,
    read_manifest,
    upload_part,
)
from recsys.training.zero import TAG

Log = list[dict[str, float]]

OPTIMIZER_FILES = "_optim_states.pt"
_SCHEMES = {"local": "", "s3": "s3://", "gcs": "gs://"}
"""Of the filesystems that `recsys.storage` opens, what stands before a path."""

UPLOAD_S = 3_600
"""Longest wait for an upload; storage gives up long before, so only a thread that died takes it."""
_uploaded = threading.Event()
_uploaded.set()


@dataclass(frozen=True, slots=True)
class Seat:
    """Where in the run a process is: its rank of how many, its node, and its number there."""

    rank: int
    world_size: int
    node: int
    local_rank: int


def save(engine: Any, cursor: Cursor, log: Log, metrics: dict[str, float]) -> None:
    """Write a checkpoint of this state and go on; it is uploaded meanwhile. Every rank must call.

    One upload is under way at most: a save waits for the one before, so that the disk holds the
    shards once.

    Raises:
        RuntimeError: this machine's disk does not take the shards.
        TimeoutError: the upload before did not end.
    """
    _await_upload()
    context = ray.train.get_context()
    save_id = _tell_all(uuid4().hex, engine.device)[0]
    commit = Commit(
        version=SHARDS_VERSION,
        save_id=save_id,
        world_size=context.get_world_size(),
        metrics=metrics,
        **asdict(cursor),
    )
    folder = write_shards(engine, cursor, log, context.get_world_rank(), _scratch(_run_uri()))
    _uploaded.clear()
    ray.train.report(
        {"step": cursor.step, "epoch": cursor.epoch, **metrics},
        checkpoint=ray.train.Checkpoint.from_directory(folder),
        checkpoint_dir_name=folder_name(cursor.step, cursor.epoch),
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
        checkpoint_upload_fn=functools.partial(_upload, commit=commit),
        delete_local_checkpoint_after_upload=True,
    )


def _await_upload() -> None:
    if not _uploaded.wait(UPLOAD_S):
        raise TimeoutError(
            f"the upload of a checkpoint did not end in {UPLOAD_S} s: the storage hangs, or "
            "takes less than a checkpoint in that time"
        )


def write_shards(engine: Any, cursor: Cursor, log: Log, rank: int, prefix: str) -> Path:
    """Write this rank's files to a new folder whose name begins with `prefix`."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        engine.save_checkpoint(str(folder), tag=TAG, client_state={"cursor": asdict(cursor)})
        if rank == 0:
            (folder / LOG).write_text(json.dumps(log))
    except (OSError, RuntimeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(
            f"{folder}: the shards of step {cursor.step} cannot be written ({error}): free the disk"
        ) from error
    return folder


def _upload(checkpoint: ray.train.Checkpoint, name: str, commit: Commit) -> ray.train.Checkpoint:
    # In place of Ray's own copy, which takes a last part that S3 refused for a success.
    context = ray.train.get_context()
    try:
        place = f"{_run_uri()}/{name}"
        upload_part(Path(checkpoint.path), place, context.get_world_rank(), commit)
    finally:
        _uploaded.set()
    storage = _storage()
    path = storage.build_checkpoint_path_from_name(name)
    return ray.train.Checkpoint(path, storage.storage_filesystem)


def _storage() -> Any:
    return ray.train.get_context().get_storage()  # Ray's annotation says None


def _run_uri() -> str:
    storage = _storage()
    return uri_of(storage.storage_filesystem, storage.experiment_fs_path)


def uri_of(fs: pafs.FileSystem, path: str) -> str:
    """The path or URI of a place that Ray tells as a filesystem and a path within it."""
    assert fs.type_name in _SCHEMES, fs.type_name
    return f"{_SCHEMES[fs.type_name]}{path}"


def _scratch(run: str) -> str:
    """How the names of this run's folders on this machine's disk begin."""
    return f"recsys-run-{hashlib.sha256(run.encode()).hexdigest()[:16]}-"


@functools.cache
def clear_scratch(run: str) -> None:
    """Delete what killed workers of a run left on this machine's disk; once in a process, before
    it writes there itself."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_scratch(run)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def has_checkpoint() -> bool:
    """Whether the run's folder holds a checkpoint, whole or not."""
    return bool(list_checkpoints(_run_uri()))


def restore(engine: Any) -> tuple[Cursor, Log]:
    """Load the run's newest good checkpoint, if there is one, into the engine.

    Every rank must call it. It waits for an upload that is under way.

    Raises:
        ShardError: the run has checkpoints, and none is good.
        TimeoutError: an upload did not end.
    """
    _await_upload()
    context = ray.train.get_context()
    seat = Seat(
        context.get_world_rank(),
        context.get_world_size(),
        context.get_node_rank(),
        context.get_local_rank(),
    )
    return load_newest(engine, _run_uri(), seat)


def load_newest(engine: Any, run: str, seat: Seat) -> tuple[Cursor, Log]:
    """Load the newest good checkpoint of the run's folder; where no save ever ended, begin anew.

    Every rank must call it: all take the same checkpoint, which none of them refuses.

    Raises:
        ShardError: there are checkpoints, and none is good; names the files.
    """
    if seat.local_rank == 0:
        clear_scratch(run)
    names = _tell_all("\n".join(list_checkpoints(run)), engine.device)[0].split()
    damaged: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix=_scratch(run)) as folder:
            found = _bring(f"{run}/{name}", seat, Path(folder), engine.device)
            if found.commit is not None:
                return _load(engine, found.commit, Path(folder), seat)
        damaged += found.damaged
        if seat.rank == 0:
            for fault in found.damaged or found.unfinished[:1]:
                print(f"refused a checkpoint: {fault}", flush=True)
    if damaged:
        raise ShardError(
            f"none of the {len(names)} checkpoints in {run} is good; to begin anew, delete that "
            "folder:\n" + "\n".join(damaged)
        )
    return Cursor(), []


@dataclass(frozen=True, slots=True)
class _Found:
    """What to load, or why not; the same for all ranks."""

    commit: Commit | None
    damaged: list[str]
    unfinished: list[str]


def _bring(place: str, seat: Seat, folder: Path, device: torch.device) -> _Found:
    """Fetch and compare what this rank loads."""
    commit, damaged, unfinished = None, "", ""
    try:
        commit = read_commit(place)
        if commit.world_size == seat.world_size:
            _fetch_own(place, commit, seat.rank, folder)
        elif seat.local_rank == 0:
            fetch_all(place, folder)
    except UnfinishedError as error:
        unfinished = str(error)
    except ShardError as error:
        damaged = str(error)
    told = [sorted(set(_tell_all(fault, device)) - {""}) for fault in (damaged, unfinished)]
    return _Found(None if any(told) else commit, *told)


def _fetch_own(place: str, commit: Commit, rank: int, folder: Path) -> None:
    """A rank's own files, and those of rank 0 that all ranks read."""
    fetch(place, read_manifest(place, commit, rank).files, folder)
    if rank != 0:
        files = read_manifest(place, commit, 0).files
        fetch(place, [f for f in files if not f.path.endswith(OPTIMIZER_FILES)], folder)


def _load(engine: Any, commit: Commit, folder: Path, seat: Seat) -> tuple[Cursor, Log]:
    if commit.world_size == seat.world_size:
        path, client = engine.load_checkpoint(str(folder), tag=TAG)
        assert path is not None, f"no DeepSpeed checkpoint in {folder}"
    else:
        if seat.local_rank == 0:
            reshard(folder)
        folder = _folder_of_node(folder, seat, engine.device)
        client = load_resharded(engine, folder)
    cursor, told = Cursor(**client["cursor"]), json.loads((folder / LOG).read_text())
    assert asdict(cursor) == {name: getattr(commit, name) for name in asdict(cursor)}
    _tell_all("read", engine.device)  # the folder goes when the node's first rank leaves
    return cursor, told


def _folder_of_node(folder: Path, seat: Seat, device: torch.device) -> Path:
    """Where the first rank of this rank's node has the whole checkpoint."""
    mine = f"{folder}" if seat.local_rank == 0 else ""
    told = _tell_all(f"{seat.node}\n{mine}", device)
    found = dict(line.split("\n") for line in told if not line.endswith("\n"))
    return Path(found[str(seat.node)])


def _tell_all(text: str, device: torch.device) -> list[str]:
    """What every rank says, by rank; every rank must call it."""
    said = torch.tensor(list(text.encode()), dtype=torch.uint8)
    sizes = gather(torch.tensor([len(said)]), device).tolist()
    parts = gather(said, device).split(sizes)
    return [bytes(part.tolist()).decode() for part in parts]

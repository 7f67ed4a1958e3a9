"""The files of a resume checkpoint: which rank wrote each, and whether all are as it wrote them.

Every rank uploads its files and then `manifest-<rank>.json` with their sizes and sha256; rank 0
ends with `COMMIT.json`, which says of how many ranks the checkpoint is. All carry the random number
of one save, so that what an interrupted save left in a folder is never mixed with a later one's.
A checkpoint counts only where COMMIT, every rank's manifest and every file agree: a copy that told
of success and lost its last part is found by whoever reads it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TypeVar

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.artifact import FileEntry
from recsys.storage import (
    download,
    filesystem,
    has_file,
    list_files,
    read_bytes,
    read_stream,
    retried,
    storage_errors,
    upload,
    write_bytes,
)

COMMIT = "COMMIT.json"
VERSION = 1
NAME = re.compile(r"step_(\d{8,})_epoch_(\d{4,})")


class ShardError(ValueError):
    """A checkpoint must not be loaded; the message names the file and the reason."""


class UnfinishedError(ShardError):
    """It is not all there: its upload never ended."""


class RankManifest(BaseModel):
    """The files that one rank wrote in one save."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int
    save_id: str
    rank: int
    world_size: int
    files: list[FileEntry]


class Commit(BaseModel):
    """What a whole checkpoint is: its save, its ranks, where the run stood and how good it was."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    version: int
    save_id: str
    world_size: int
    step: int
    epoch: int
    windows: int
    metrics: dict[str, float]


M = TypeVar("M", Commit, RankManifest)


def folder_name(step: int, epoch: int) -> str:
    """The name of a checkpoint's folder; names sort as the checkpoints came."""
    return f"step_{step:08d}_epoch_{epoch:04d}"


def list_checkpoints(run: str) -> list[str]:
    """Names of the checkpoint folders of a run, whole or not, newest first."""
    fs, root = filesystem(run)
    with storage_errors(run):
        selector = pafs.FileSelector(root, allow_not_found=True)
        found = retried(lambda: fs.get_file_info(selector))
    names = [info.base_name for info in found if NAME.fullmatch(info.base_name)]
    return sorted(names, key=_age, reverse=True)


def _age(name: str) -> tuple[int, int]:
    found = NAME.fullmatch(name)
    assert found, name
    return int(found[1]), int(found[2])


def _manifest_name(rank: int) -> str:
    return f"manifest-{rank:05d}.json"


def upload_part(folder: Path, place: str, rank: int, commit: Commit) -> None:
    """Copy a rank's files to a checkpoint's place, then what proves them; rank 0 commits last.

    Raises:
        StorageError: a file cannot be written.
    """
    files: list[FileEntry] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        files.append(FileEntry(path=name, size=path.stat().st_size, sha256=_sha256_of(str(path))))
        upload(path, f"{place}/{name}")
    manifest = RankManifest(
        version=VERSION,
        save_id=commit.save_id,
        rank=rank,
        world_size=commit.world_size,
        files=files,
    )
    _write(f"{place}/{_manifest_name(rank)}", manifest)
    if rank == 0:
        _write(f"{place}/{COMMIT}", commit)


def _write(uri: str, model: BaseModel) -> None:
    write_bytes(uri, model.model_dump_json(indent=2).encode())


def _sha256_of(uri: str) -> str:
    return read_stream(uri, lambda stream: hashlib.file_digest(stream, "sha256").hexdigest())


def read_commit(place: str) -> Commit:
    """What a checkpoint says of itself; nothing but this file is looked at.

    Raises:
        UnfinishedError: there is none.
        ShardError: it is damaged, or of a later release.
    """
    return _read(place, COMMIT, Commit)


def _read(place: str, name: str, kind: type[M]) -> M:
    if not has_file(f"{place}/{name}"):
        raise UnfinishedError(
            f"{place}: '{name}' is missing: the upload never ended, or an earlier release wrote it"
        )
    try:
        found = kind.model_validate_json(read_bytes(f"{place}/{name}"))
    except ValidationError as error:
        raise ShardError(f"{place}: '{name}' is damaged ({error.error_count()} faults)") from error
    if found.version > VERSION:
        raise ShardError(f"{place}: '{name}' is of version {found.version}: update recsys")
    return found


def read_manifest(place: str, commit: Commit, rank: int) -> RankManifest:
    """The manifest of one of the checkpoint's ranks.

    Raises:
        UnfinishedError: it is missing, or another save left it.
        ShardError: it is damaged, or another rank's.
    """
    name = _manifest_name(rank)
    found = _read(place, name, RankManifest)
    if found.save_id != commit.save_id:
        raise UnfinishedError(f"{place}: '{name}' and '{COMMIT}' are of two saves")
    if (found.rank, found.world_size) != (rank, commit.world_size):
        raise ShardError(
            f"{place}: '{name}' is of rank {found.rank} of {found.world_size}, not of rank {rank} "
            f"of {commit.world_size}"
        )
    return found


def fetch(place: str, files: list[FileEntry], target: Path) -> None:
    """Bring files of a checkpoint to a local folder, each compared with its manifest entry.

    A file on this machine is compared where it is and linked.

    Raises:
        UnfinishedError: a file is missing.
        ShardError: a file is torn, or its content is another.
        StorageError: the storage cannot be read.
    """
    fs, root = filesystem(place)
    sizes = {info.path.removeprefix(f"{root}/"): info.size for info in list_files(place)}
    for entry in files:
        if entry.path not in sizes:
            raise UnfinishedError(f"{place}: '{entry.path}' is missing")
        if sizes[entry.path] != entry.size:
            raise ShardError(
                f"{place}: '{entry.path}' is torn: {sizes[entry.path]} bytes of {entry.size}"
            )
        local = target / entry.path
        local.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(fs, pafs.LocalFileSystem):
            local.symlink_to(f"{root}/{entry.path}")
        else:
            download(f"{place}/{entry.path}", local)
        if _sha256_of(str(local)) != entry.sha256:
            raise ShardError(
                f"{place}: '{entry.path}' was altered, or is another rank's: its sha256 is not "
                "the manifest's"
            )


def fetch_all(place: str, target: Path) -> Commit:
    """Bring all ranks' files of a checkpoint to a local folder, each compared.

    Raises:
        ShardError: as `read_manifest` and `fetch` do.
    """
    commit = read_commit(place)
    for rank in range(commit.world_size):
        fetch(place, read_manifest(place, commit, rank).files, target)
    return commit


def delete_checkpoint(place: str) -> None:
    """Delete a checkpoint, first what makes it count."""
    fs, root = filesystem(place)
    with storage_errors(place):
        if has_file(f"{place}/{COMMIT}"):
            retried(lambda: fs.delete_file(f"{root}/{COMMIT}"))
        retried(lambda: fs.delete_dir(root))

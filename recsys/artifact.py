"""The arrows between stages: a directory with a payload and `manifest.json`, written last.

A directory without a valid manifest does not exist for any reader. Paths are local or any URI
pyarrow knows (`s3://`, `gs://`). While a writer is at work the directory holds `INCOMPLETE`.
"""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.storage import (
    download,
    filesystem,
    has_file,
    list_files,
    read_bytes,
    read_stream,
    steady_filesystem,
    storage_errors,
    upload,
    write_bytes,
)

MANIFEST = "manifest.json"
INCOMPLETE = "INCOMPLETE"
SCHEMA_VERSION = 1
KINDS = (
    "dataset",
    "checkpoint",
    "index",
    "ranker",
    "report",
    "attributes",
    "comparison",
    "backbone",
    "sweep",
    "explanations",
    "recommendations",
    "audience",
    "forecast",
)
INPUTS = "inputs.json"
"""What an artifact remembers of the files it was made from, and of when they were written."""
NOT_IN_DIGEST = ("quarantine/", "quality.", INPUTS)
"""Payload that tells about an artifact and is no part of what it is: bad rows lie in files as their
blocks came, and reports name the files that were read."""


class FileEntry(BaseModel):
    """One payload file: path inside the artifact, size in bytes, sha256 in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact is, what it was made from, and every file it holds.

    `parents` maps a name to the digest of what the artifact was made from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    schema_version: int
    code_version: str
    config: dict[str, Any]
    parents: dict[str, str]
    facts: dict[str, Any]
    files: list[FileEntry]

    @property
    def digest(self) -> str:
        """sha256 over kind, config, facts and files; two equal artifacts have one digest."""
        named = self.model_dump(include={"kind", "schema_version", "config", "facts", "files"})
        named["files"] = [f for f in named["files"] if not f["path"].startswith(NOT_IN_DIGEST)]
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


class Artifact:
    """A complete artifact, read-only."""

    def __init__(self, uri: str, manifest: Manifest) -> None:
        self.uri = str(uri).rstrip("/")
        self.manifest = manifest
        self._entries = {entry.path: entry for entry in manifest.files}

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return self.manifest.digest

    def names(self, prefix: str = "") -> list[str]:
        """Payload paths that begin with `prefix`, sorted."""
        return sorted(f.path for f in self.manifest.files if f.path.startswith(prefix))

    def read_bytes(self, name: str) -> bytes:
        """The content of one payload file.

        Raises:
            ValueError: there is no such file, or its content is not what the manifest says.
        """
        entry = self._entry(name)
        content = read_bytes(f"{self.uri}/{name}")
        self._compare(entry, len(content), hashlib.sha256(content).hexdigest())
        return content

    def read_json(self, name: str) -> Any:
        """One JSON payload file."""
        return json.loads(self.read_bytes(name))

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet payload file.

        The whole file is read, and compared with the manifest, for a few `columns` too.
        """
        return pq.read_table(pa.BufferReader(self.read_bytes(name)), columns=columns)

    def download(self, prefix: str, target: Path) -> Path:
        """Copy the payload files under the folder `prefix` to `target/prefix`.

        Raises:
            ValueError: a file's content is not what the manifest says.
        """
        for name in self.names(f"{prefix}/"):
            path = target / name
            download(f"{self.uri}/{name}", path)
            self._compare(self._entry(name), path.stat().st_size, _sha256_of(path))
        return target / prefix

    def _entry(self, name: str) -> FileEntry:
        if name not in self._entries:
            raise ValueError(f"{self.uri} has no file '{name}': make the artifact again")
        return self._entries[name]

    def _compare(self, entry: FileEntry, size: int, sha256: str) -> None:
        fault = None
        if size != entry.size:
            fault = f"is torn: {size} bytes, manifest says {entry.size}"
        elif sha256 != entry.sha256:
            fault = "was altered: its sha256 is not the manifest's"
        if fault:
            raise ValueError(f"{self.uri}: file '{entry.path}' {fault}: make the artifact again")

    def check_sizes(self) -> None:
        """Compare the size of every file with the manifest, by one listing.

        Raises:
            ValueError: a file is missing or torn; names the file.
        """
        _, root = filesystem(self.uri)
        sizes = {info.path.removeprefix(f"{root}/"): info.size for info in list_files(self.uri)}
        for entry in self.manifest.files:
            if entry.path not in sizes:
                raise ValueError(
                    f"{self.uri}: file '{entry.path}' is missing: make the artifact again"
                )
            self._compare(entry, sizes[entry.path], entry.sha256)

    def check_files(self) -> None:
        """Compare the size and the content of every file with the manifest.

        Raises:
            ValueError: a file is missing, torn or altered; names the file.
        """
        self.check_sizes()
        with ThreadPoolExecutor(8) as pool:
            for entry, sha256 in zip(
                self.manifest.files, pool.map(self._sha256, self.manifest.files), strict=True
            ):
                self._compare(entry, entry.size, sha256)

    def _sha256(self, entry: FileEntry) -> str:
        return read_stream(
            f"{self.uri}/{entry.path}",
            lambda stream: hashlib.file_digest(stream, "sha256").hexdigest(),
        )


def open_artifact(uri: str | Path, kind: str, check: bool = True) -> Artifact:
    """Open the complete artifact of this kind at `uri`.

    Every file is compared with the manifest; the workers of a job whose driver has done so leave
    it out with `check=False`.

    Raises:
        ValueError: there is no complete artifact, it is of another kind or a newer schema, or a
            file is missing, torn or altered.
    """
    assert kind in KINDS, kind
    artifact = Artifact(str(uri), _read_manifest(str(uri)))
    if artifact.manifest.kind != kind:
        raise ValueError(f"{uri} is a '{artifact.manifest.kind}' artifact; a '{kind}' is needed")
    if check:
        artifact.check_files()
    return artifact


def find_manifest(uri: str | Path) -> Manifest | None:
    """The manifest at `uri`, or None where there is no complete artifact."""
    return _read_manifest(str(uri)) if _has_manifest(str(uri)) else None


def _has_manifest(uri: str) -> bool:
    return has_file(f"{uri.rstrip('/')}/{MANIFEST}")


def _read_manifest(uri: str) -> Manifest:
    if not _has_manifest(uri):
        raise ValueError(f"{uri} holds no complete artifact: {MANIFEST} is missing")
    content = read_bytes(f"{uri.rstrip('/')}/{MANIFEST}")
    try:
        raw = json.loads(content)
        _check_version(uri, raw.get("schema_version"))
        return Manifest.model_validate(raw)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, ValidationError) as error:
        raise ValueError(f"{uri}/{MANIFEST} is damaged: make the artifact again") from error


def _check_version(uri: str, found: Any) -> None:
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise ValueError(
            f"{uri} has schema version {found}; this release reads up to {SCHEMA_VERSION}: "
            "update recsys"
        )


class ArtifactWriter:
    """Writes one artifact; it exists for readers only once `publish` has returned."""

    def __init__(self, uri: str | Path, kind: str) -> None:
        """Start an artifact, in place of the one that stands at `uri`, if any.

        Raises:
            ValueError: `uri` holds files that are no artifact's.
        """
        assert kind in KINDS, kind
        self.uri, self.kind = str(uri).rstrip("/"), kind
        self._fs, self._root = steady_filesystem(self.uri)
        self._entries: dict[str, FileEntry] = {}
        with storage_errors(self.uri):
            self._clear()

    def _clear(self) -> None:
        found = self._fs.get_file_info(pafs.FileSelector(self._root, allow_not_found=True))
        names = {info.base_name for info in found}
        if names and INCOMPLETE not in names and not self._is_artifact():
            raise ValueError(
                f"{self.uri} holds files that are not an artifact's: choose another output"
            )
        self._fs.create_dir(self._root)
        self._write(INCOMPLETE, self.kind.encode())
        for info in sorted(found, key=lambda info: info.base_name != MANIFEST):
            if info.base_name == INCOMPLETE:
                continue
            if info.type == pafs.FileType.Directory:
                self._fs.delete_dir(info.path)
            else:
                self._fs.delete_file(info.path)

    def _is_artifact(self) -> bool:
        if not _has_manifest(self.uri):
            return False
        return read_bytes(f"{self.uri}/{MANIFEST}").startswith(b'{\n  "kind": ')

    def _write(self, name: str, content: bytes) -> FileEntry:
        return write_file(self.uri, name, content)

    def add_bytes(self, name: str, content: bytes) -> None:
        """Write one payload file."""
        self.add_entries([self._write(name, content)])

    def add_json(self, name: str, value: Any) -> None:
        """Write one JSON payload file."""
        self.add_bytes(name, json.dumps(value, indent=2, ensure_ascii=False).encode())

    def add_table(self, name: str, table: pa.Table) -> None:
        """Write one Parquet payload file."""
        self.add_bytes(name, parquet_bytes(table))

    def add_directory(self, local: Path, prefix: str) -> None:
        """Copy the files of a local directory under the folder `prefix`."""
        for path in sorted(p for p in local.rglob("*") if p.is_file()):
            name = f"{prefix}/{path.relative_to(local).as_posix()}"
            upload(path, f"{self.uri}/{name}")
            size = path.stat().st_size
            self.add_entries([FileEntry(path=name, size=size, sha256=_sha256_of(path))])

    def add_entries(self, entries: list[FileEntry]) -> Self:
        """Take in files that other processes wrote with `write_file`."""
        self._entries |= {entry.path: entry for entry in entries}
        return self

    def adopt(self, folder: str) -> list[str]:
        """Take in all files that other processes wrote below `folder`; returns their paths."""
        selector = pafs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
        infos = [i for i in self._fs.get_file_info(selector) if i.type == pafs.FileType.File]
        names = sorted(f"{folder}/{i.base_name}" for i in infos if not i.base_name.startswith("."))
        for name in names:
            content = self.read_bytes(name)
            digest = hashlib.sha256(content).hexdigest()
            self.add_entries([FileEntry(path=name, size=len(content), sha256=digest)])
        return names

    def names(self, prefix: str = "") -> list[str]:
        """Paths of the payload files added so far that begin with `prefix`, sorted."""
        return sorted(name for name in self._entries if name.startswith(prefix))

    def read_bytes(self, name: str) -> bytes:
        """The content of one file written so far."""
        with self._fs.open_input_file(f"{self._root}/{name}") as stream:
            return stream.read()

    def drop(self, prefix: str) -> None:
        """Delete the payload files added so far whose path begins with `prefix`."""
        for name in self.names(prefix):
            self._delete(name)
            del self._entries[name]

    def _delete(self, name: str) -> None:
        with storage_errors(f"{self.uri}/{name}"):
            self._fs.delete_file(f"{self._root}/{name}")

    def publish(
        self, config: dict[str, Any], parents: dict[str, str], facts: dict[str, Any] | None = None
    ) -> Artifact:
        """Write the manifest, which completes the artifact."""
        manifest = Manifest(
            kind=self.kind,
            schema_version=SCHEMA_VERSION,
            code_version=version("recsys"),
            config=config,
            parents=parents,
            facts=facts or {},
            files=[self._entries[name] for name in sorted(self._entries)],
        )
        self._write(MANIFEST, manifest.model_dump_json(indent=2).encode())
        self._delete(INCOMPLETE)
        return Artifact(self.uri, manifest)


def write_file(uri: str | Path, name: str, content: bytes) -> FileEntry:
    """Write `content` to `uri/name` from any process; atomic on local disk and on S3."""
    write_bytes(f"{str(uri).rstrip('/')}/{name}", content)
    return FileEntry(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as one zstd Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()

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

MANIFEST = "manifest.json"
INCOMPLETE = "INCOMPLETE"
SCHEMA_VERSION = 1
KINDS = ("dataset", "checkpoint", "index", "report")


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
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or URI, and the path within it."""
    text = str(uri)
    if "://" in text:
        return pafs.FileSystem.from_uri(text.rstrip("/"))
    return pafs.LocalFileSystem(), str(Path(text).absolute())


class Artifact:
    """A complete artifact, read-only."""

    def __init__(self, uri: str, manifest: Manifest) -> None:
        self.uri = str(uri)
        self.manifest = manifest
        self._fs, self._root = filesystem(uri)

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return self.manifest.digest

    def names(self, prefix: str = "") -> list[str]:
        """Payload paths that begin with `prefix`, sorted."""
        return sorted(f.path for f in self.manifest.files if f.path.startswith(prefix))

    def read_bytes(self, name: str) -> bytes:
        """The content of one payload file."""
        with self._fs.open_input_file(f"{self._root}/{name}") as stream:
            return stream.read()

    def read_json(self, name: str) -> Any:
        """One JSON payload file."""
        return json.loads(self.read_bytes(name))

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet payload file."""
        return pq.read_table(f"{self._root}/{name}", filesystem=self._fs, columns=columns)

    def download(self, prefix: str, target: Path) -> Path:
        """Copy the payload files under the folder `prefix` to `target/prefix`."""
        for name in self.names(f"{prefix}/"):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read_bytes(name))
        return target / prefix

    def check_files(self) -> None:
        """Compare every file with the manifest.

        Raises:
            ValueError: a file is missing, torn or altered; names the file.
        """
        with ThreadPoolExecutor(8) as pool:
            for fault in pool.map(self._fault_of, self.manifest.files):
                if fault:
                    raise ValueError(f"{self.uri}: {fault}: make the artifact again")

    def _fault_of(self, entry: FileEntry) -> str | None:
        info = self._fs.get_file_info(f"{self._root}/{entry.path}")
        if info.type != pafs.FileType.File:
            return f"file '{entry.path}' is missing"
        if info.size != entry.size:
            return f"file '{entry.path}' is torn: {info.size} bytes, manifest says {entry.size}"
        if self._sha256(entry.path) != entry.sha256:
            return f"file '{entry.path}' was altered: its sha256 is not the manifest's"
        return None

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._fs.open_input_stream(f"{self._root}/{name}") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
        return digest.hexdigest()


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
    fs, root = filesystem(str(uri))
    if fs.get_file_info(f"{root}/{MANIFEST}").type != pafs.FileType.File:
        return None
    return _read_manifest(str(uri))


def _read_manifest(uri: str) -> Manifest:
    fs, root = filesystem(uri)
    if fs.get_file_info(f"{root}/{MANIFEST}").type != pafs.FileType.File:
        raise ValueError(f"{uri} holds no complete artifact: {MANIFEST} is missing")
    with fs.open_input_file(f"{root}/{MANIFEST}") as stream:
        content = stream.read()
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
        self.uri, self.kind = str(uri), kind
        self._fs, self._root = filesystem(self.uri)
        self._entries: dict[str, FileEntry] = {}
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
        if self._fs.get_file_info(f"{self._root}/{MANIFEST}").type != pafs.FileType.File:
            return False
        with self._fs.open_input_file(f"{self._root}/{MANIFEST}") as stream:
            start = stream.read(200)
        return start.startswith(b'{\n  "kind": ')

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
            self.add_bytes(f"{prefix}/{path.relative_to(local).as_posix()}", path.read_bytes())

    def add_entries(self, entries: list[FileEntry]) -> Self:
        """Take in files that other processes wrote with `write_file`."""
        self._entries |= {entry.path: entry for entry in entries}
        return self

    def drop(self, prefix: str) -> None:
        """Delete the payload files added so far whose path begins with `prefix`."""
        for name in [name for name in self._entries if name.startswith(prefix)]:
            self._fs.delete_file(f"{self._root}/{name}")
            del self._entries[name]

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
        self._fs.delete_file(f"{self._root}/{INCOMPLETE}")
        return Artifact(self.uri, manifest)


def write_file(uri: str, name: str, content: bytes) -> FileEntry:
    """Write `content` to `uri/name` from any process; atomic on local disk and on S3."""
    fs, root = filesystem(uri)
    path = f"{root}/{name}"
    if isinstance(fs, pafs.LocalFileSystem):
        _write_local(Path(path), content)
    else:
        with fs.open_output_stream(path) as stream:
            stream.write(content)
    return FileEntry(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _write_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as one zstd Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()

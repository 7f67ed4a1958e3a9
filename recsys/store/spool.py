"""Parquet files that are on their way to an object store, on the local disk until they are there.

A file has its last name from the beginning, which no other file ever has. So what is there under
its name is the file, and it is not sent again: an incremental `prepare` refuses files that were
written anew. Processes that share a spool send one after the other.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.storage import has_file, storage_errors, upload


class Spool:
    """The files below `root`, each bound for the same name below `uri`.

    Files of an earlier process are sent too. Beyond `max_bytes` the spool is full, which is for
    those who have more rows to decide by; a file is added all the same.
    """

    def __init__(self, root: Path, uri: str, max_bytes: int) -> None:
        self._root, self._uri, self._max_bytes = root, uri.rstrip("/"), max_bytes
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)
        self._bytes = 0
        self._count()

    def files(self) -> list[Path]:
        """What has not been sent, by name."""
        return sorted(p for p in self._root.rglob("*.parquet") if not p.name.startswith("."))

    @property
    def num_bytes(self) -> int:
        """Size of what has not been sent."""
        return self._bytes

    @property
    def is_full(self) -> bool:
        """Whether `max_bytes` are reached."""
        return self._bytes >= self._max_bytes

    def add(self, folder: str, table: pa.Table) -> None:
        """Keep a table for `<uri>/<folder>/`; once this returns, no crash loses it.

        Raises:
            StorageError: it cannot be written; nothing is left of it.
        """
        path = self._root / folder / f"part-{uuid4().hex}.parquet"
        with storage_errors(str(path), table.nbytes):
            self._write(path, table)
        self._count()

    def _write(self, path: Path, table: pa.Table) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as target:
                pq.write_table(table, target, compression="zstd")
                target.flush()
                os.fsync(target.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        for folder in path.relative_to(self._root).parents:
            _sync(self._root / folder)

    def send(self) -> int:
        """Send all files; returns how many. What cannot be sent stays.

        Raises:
            StorageError: the object store cannot be written to, or the spool cannot be read.
        """
        with storage_errors(str(self._root)), _held(self._root):
            files = self.files()
            try:
                for path in files:
                    self._send_one(path)
            finally:
                self._count()
        return len(files)

    def _send_one(self, path: Path) -> None:
        place = f"{self._uri}/{path.relative_to(self._root).as_posix()}"
        if not has_file(place):
            upload(path, place)
        with self._lock:
            self._bytes -= path.stat().st_size
            path.unlink()

    def _count(self) -> None:
        """Look at the disk again: who shares the spool adds and sends too."""
        with self._lock:
            self._bytes = sum(_size(path) for path in self.files())


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Let no other thread or process be here; the lock of one that dies is free."""
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync(folder: Path) -> None:
    """Make the names in a folder last."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

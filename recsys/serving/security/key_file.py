"""Keys are added to a file and taken out of it; the file is replaced as a whole, mode 0600."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from recsys.serving.security.keys import KeyFile, KeyRecord, parse_keys


def read_key_file(path: Path) -> KeyFile:
    """The keys; none where there is no file yet.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return KeyFile(keys=())
    try:
        return parse_keys(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def add_key(path: Path, record: KeyRecord) -> None:
    """Store a key.

    Raises:
        ValueError: there is a key of that name.
    """
    keys = read_key_file(path).keys
    if record.name in {key.name for key in keys}:
        raise ValueError(f"{path} has a key '{record.name}': revoke it, or take another name")
    _replace(path, KeyFile(keys=(*keys, record)))


def revoke_key(path: Path, name: str) -> None:
    """Take a key out.

    Raises:
        ValueError: there is none of that name.
    """
    keys = read_key_file(path).keys
    kept = tuple(key for key in keys if key.name != name)
    if len(kept) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise ValueError(f"{path} has no key '{name}'; it has: {known}")
    _replace(path, KeyFile(keys=kept))


def _replace(path: Path, content: KeyFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content.model_dump_json(indent=2, exclude_none=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)

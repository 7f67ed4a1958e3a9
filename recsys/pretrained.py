"""Where the files of a pretrained language model are."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import shutil
import tempfile
from pathlib import Path

from recsys.artifact import find_manifest, open_artifact

PACKAGE = "package:"


def resolve_backbone(name: str) -> str:
    """The path or hub name transformers loads for a config's `model.backbone`.

    `package:<name>/<folder>` is a folder inside an installed Python package. A URI, such as
    `s3://bucket/checkpoint/backbone`, is a checkpoint's tuned language model; it is copied to this
    machine once, and the copy goes when the process ends. Everything else is passed on.

    Raises:
        ValueError: the package is not installed or has no such folder, or the URI is no folder of
            a complete checkpoint.
    """
    if "://" in name:
        return _copy_of(name.rstrip("/"))
    if not name.startswith(PACKAGE):
        return name
    package, _, folder = name.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"backbone '{name}': package '{package}' is not installed (extra 'demo')")
    path = Path(spec.origin).parent / folder
    if not (path / "config.json").is_file():
        raise ValueError(f"backbone '{name}': '{folder}' holds no config.json")
    return str(path)


@functools.cache
def _copy_of(uri: str) -> str:
    """The path of a copy of an artifact's folder, compared with the artifact's manifest."""
    place, _, folder = uri.rpartition("/")
    artifact = open_artifact(place, _kind_of(place), check=False)
    if f"{folder}/config.json" not in artifact.names():
        raise ValueError(f"backbone '{uri}': {place} has no file '{folder}/config.json'")
    copy = tempfile.mkdtemp(prefix="backbone-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    return str(artifact.download(folder, Path(copy)))


def _kind_of(place: str) -> str:
    """A checkpoint, or a backbone that was pretrained on a catalogue."""
    manifest = find_manifest(place)
    return "backbone" if manifest and manifest.kind == "backbone" else "checkpoint"


def backbone_digest(name: str) -> str:
    """The digest of the artifact that a backbone is a folder of; "" where it is of none."""
    manifest = find_manifest(name.rstrip("/").rpartition("/")[0]) if "/" in name else None
    return manifest.digest if manifest else ""

"""Where the files of a pretrained language model are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "package:"


def resolve_backbone(name: str) -> str:
    """The path or hub name transformers loads for a config's `model.backbone`.

    `package:<name>/<folder>` is a folder inside an installed Python package; everything else is
    passed on.

    Raises:
        ValueError: the package is not installed or has no such folder.
    """
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

"""Which files an import reads: those given, and all below the folders given."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def find_files(inputs: Iterable[Path]) -> list[Path]:
    """Every file given or below a folder given, sorted, without hidden ones.

    Raises:
        ValueError: an input does not exist, or two of them hold one file.
    """
    found: list[Path] = []
    for place in inputs:
        if not place.exists():
            raise ValueError(f"{place} does not exist")
        below = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        found += [path for path in below if not path.name.startswith(".")]
    if len({path.resolve() for path in found}) < len(found):
        raise ValueError("a file is given twice: it would be read twice")
    return found


def pick(files: Iterable[Path], pattern: str) -> list[Path]:
    """The files whose whole name fits the regular expression."""
    return [path for path in files if re.fullmatch(pattern, path.name)]

"""Fetch a public data set from its owner, check it and unpack it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from recsys.data.importers.fetch import fetch
from recsys.data.public_sets import PUBLIC_SETS, PublicSet


@dataclass(frozen=True)
class Arguments:
    """Which set, and where to."""

    name: str
    """One of the sets of docs/data-sources.md, such as movielens-100k."""
    output: Path
    """Folder for the files; zips are unpacked below it."""


def find(name: str) -> PublicSet:
    """The set of this name, or a ValueError that lists the names."""
    if name not in PUBLIC_SETS:
        raise ValueError(f"'{name}' is not one of {', '.join(PUBLIC_SETS)}")
    return PUBLIC_SETS[name]


def show_and_fetch(public_set: PublicSet, output: Path) -> None:
    """Tell the terms, fetch with a bar, tell the checksums and the next command."""
    console = Console(stderr=True, soft_wrap=True, markup=False)
    console.print(f"Licence: {public_set.licence}\nCite: {public_set.citation}")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=console) as bars:
        tasks = {file.name: bars.add_task(file.name, total=None) for file in public_set.files}
        checksums = fetch(
            public_set,
            output,
            lambda name, at, of: bars.update(tasks[name], completed=at, total=of),
        )
    for file in public_set.files:
        checked = "as published" if file.checksum else "none published to compare with"
        console.print(f"{file.name}: {checksums[file.name]}, {checked}")
    console.print(f"Next: python -m ray_jobs.convert --format {public_set.format} --input {output}")


if __name__ == "__main__":
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        show_and_fetch(find(arguments.name), arguments.output)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(arguments.output)

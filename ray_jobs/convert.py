"""Turn a public format, or any CSV, JSON-lines or Parquet files, into raw tables."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from recsys.data.importers.convert import convert
from recsys.data.importers.tabular import Mapped


@dataclass(frozen=True)
class Arguments:
    """What is read, and where the raw tables go."""

    format: str
    """amazon2018, amazon2023, esci, mind, movielens, recbole, or tabular for CSV, JSON lines and
    Parquet of any column names; docs/data-sources.md lists what each reads."""
    input: tuple[Path, ...]
    """Files, or folders with files at any depth."""
    output: Path
    """Folder for interactions.parquet, items.parquet, queries.parquet and rejected.jsonl."""
    tabular: Annotated[Mapped, tyro.conf.arg(name="")] = field(default_factory=Mapped)
    """How the files of the format `tabular` are read."""


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        convert(arguments.format, arguments.input, arguments.output, arguments.tabular)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(arguments.output)

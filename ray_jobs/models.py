"""The versions of a registry: list them, show one, or tell how two differ."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from recsys.registry import ALIASES, Registry, differences

console = Console()


@dataclass(frozen=True)
class List:
    """All versions, oldest first, and what the aliases stand for."""

    registry: tyro.conf.Positional[str]


@dataclass(frozen=True)
class Show:
    """One version, with its whole lineage."""

    registry: tyro.conf.Positional[str]
    version: tyro.conf.Positional[str]


@dataclass(frozen=True)
class Diff:
    """Settings in which two versions differ."""

    registry: tyro.conf.Positional[str]
    first: tyro.conf.Positional[str]
    second: tyro.conf.Positional[str]


Verb = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Diff, tyro.conf.subcommand("diff")]
)


def listed(registry: Registry) -> Table:
    """All versions as a table."""
    table = Table("version", "registered", "checkpoint", "alias")
    aliases = {name: registry.alias(name) for name in ALIASES}
    for version in registry.versions():
        stands = [
            name for name, a in aliases.items() if a is not None and a.version == version.name
        ]
        when = datetime.fromtimestamp(version.registered_at, UTC).isoformat(timespec="seconds")
        table.add_row(version.name, when, version.checkpoint, ", ".join(stands))
    return table


def run(verb: Verb) -> None:
    """Print what was asked for."""
    registry = Registry(verb.registry)
    if isinstance(verb, List):
        console.print(listed(registry))
    elif isinstance(verb, Show):
        console.print_json(registry.version(verb.version).model_dump_json(exclude={"golden"}))
    else:
        first, second = registry.version(verb.first), registry.version(verb.second)
        console.print_json(json.dumps(differences(registry, first, second)))


if __name__ == "__main__":
    try:
        run(tyro.cli(Verb, description=__doc__))  # pyright: ignore
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

"""The versions of a registry: list them, show one, or tell how two differ."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from recsys.registry import ALIASES, Registry, differences

console = Console()


@dataclass(frozen=True)
class Arguments:
    """What to tell: `list`, `show VERSION`, or `diff VERSION VERSION`."""

    what: tyro.conf.Positional[Literal["list", "show", "diff"]]
    registry: tyro.conf.Positional[str]
    versions: tyro.conf.Positional[tuple[str, ...]] = ()


def listed(registry: Registry) -> Table:
    """All versions, oldest first, and what the aliases stand for."""
    table = Table("version", "registered", "checkpoint", "alias")
    aliases = {name: registry.alias(name) for name in ALIASES}
    for one in registry.versions():
        stands = [name for name, alias in aliases.items() if alias and alias.version == one.name]
        when = datetime.fromtimestamp(one.registered_at, UTC).isoformat(timespec="seconds")
        table.add_row(one.name, when, one.checkpoint, ", ".join(stands))
    return table


def run(arguments: Arguments) -> None:
    """Print what was asked for."""
    registry = Registry(arguments.registry)
    wanted = {"list": 0, "show": 1, "diff": 2}[arguments.what]
    if len(arguments.versions) != wanted:
        raise ValueError(f"{arguments.what} takes {wanted} versions, not {arguments.versions}")
    found = [registry.version(name) for name in arguments.versions]
    if arguments.what == "list":
        console.print(listed(registry))
    elif arguments.what == "show":
        console.print_json(found[0].model_dump_json(exclude={"golden"}))
    else:
        console.print_json(json.dumps(differences(registry, *found)))


if __name__ == "__main__":
    try:
        run(tyro.cli(Arguments, description=__doc__))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

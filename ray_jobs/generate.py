"""Write a generated world: interactions, items and queries as Parquet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from recsys.config import WorldConfig
from recsys.data.synthetic import generate, write_world


@dataclass(frozen=True)
class Arguments:
    """A generated world's place and size."""

    output: str
    """Directory to write to."""
    world: Annotated[WorldConfig, tyro.conf.arg(name="")] = field(default_factory=WorldConfig)
    """Size and shape."""


if __name__ == "__main__":
    arguments = tyro.cli(Arguments, description=__doc__)
    write_world(generate(arguments.world), arguments.output)
    print(arguments.output)

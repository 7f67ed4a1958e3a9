"""Make an API key, revoke one, or list those there are; only hashes are stored."""

from __future__ import annotations

import datetime
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from recsys.serving.security.key_file import add_key, read_key_file, revoke_key
from recsys.serving.security.keys import make_key


@dataclass(frozen=True)
class Arguments:
    """Without a name to make or to revoke, the keys are listed."""

    file: Path
    """The file of keys (security.keys_file); running services read it again by themselves."""
    name: str | None = None
    """Who gets a new key; it is printed, this once."""
    scopes: str = "read"
    """What it opens, with commas between: read, events, admin."""
    expires_days: float | None = None
    """Days after which it is refused; without, it is not."""
    rate_per_s: float | None = None
    """Its requests a second in one replica; without, those of security.rates.per_key_s."""
    revoke: str | None = None
    """Whose key is taken out."""


def run(arguments: Arguments, now: datetime.datetime) -> str:
    """What is printed: the new key, or the keys that there are."""
    if arguments.revoke is not None:
        revoke_key(arguments.file, arguments.revoke)
    if arguments.name is None:
        keys = read_key_file(arguments.file).keys
        return "\n".join(key.model_dump_json(exclude={"sha256"}) for key in keys)
    key, record = make_key(
        arguments.name, arguments.scopes, now, arguments.expires_days, arguments.rate_per_s
    )
    add_key(arguments.file, record)
    return key


if __name__ == "__main__":
    try:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        print(run(tyro.cli(Arguments, description=__doc__), now), flush=True)
    except ValueError as error:
        sys.exit(f"error: {error}")

"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    """A caller that is known."""

    name: str
    """Name of the key, or `token:` and the name in the token; keys have no colon in theirs."""
    scopes: frozenset[str]
    """What it may do."""
    rate_per_s: float | None = None
    """Its own rate; None has that of the config."""


class Unauthorised(Exception):
    """No caller is known by these headers; the message is for the log and holds no secret."""


class UnknownKey(Unauthorised):
    """A token names a key that is not known, or not yet."""

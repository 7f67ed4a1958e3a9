"""API keys: made at random, stored as hashes, found by hash.

A key has 256 random bits, so plain SHA-256 is the right hash: slow hashes (bcrypt, argon2) make
guessing a person's password dear, but 2**256 keys cannot be tried at any price, and 100 ms of CPU a
request would let anybody stop the service. Looking a key up by its hash tells an attacker nothing
by its time: he would have to choose inputs whose SHA-256 begins as he wishes, and a match of some
digits brings him no nearer to the key.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, PositiveFloat, ValidationError, model_validator

from recsys.config import describe
from recsys.config.section import Section
from recsys.config.security import Scope
from recsys.serving.security.principal import Principal, Unauthorised

PREFIX = "rk_"
"""By which scanners of repositories and logs find a key that leaked."""
MAX_DAYS = 3_650


class KeyRecord(Section):
    """What is stored of one key."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    """Who has it: in logs and for rates."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash of the key."""
    scopes: Annotated[tuple[Scope, ...], Field(strict=False, min_length=1)]
    """What it opens."""
    expires: Annotated[AwareDatetime, Field(strict=False)] | None = None
    """From when on it is refused, with a time zone."""
    rate_per_s: PositiveFloat | None = None
    """Requests a second; None has the rate of the config."""


class KeyFile(Section):
    """All keys of a service, as JSON."""

    keys: Annotated[tuple[KeyRecord, ...], Field(strict=False)]
    """The keys; their names differ."""

    @model_validator(mode="after")
    def _are_apart(self) -> Self:
        for what in ("name", "sha256"):
            counts = Counter(getattr(key, what) for key in self.keys)
            if repeated := [value for value, count in counts.items() if count > 1]:
                raise ValueError(f"{what} {repeated[0]} stands twice")
        return self


def new_key() -> str:
    """A key nobody had before."""
    return PREFIX + secrets.token_urlsafe(32)


def make_key(
    name: str,
    scopes: str,
    now: datetime.datetime,
    expires_days: float | None = None,
    rate_per_s: float | None = None,
) -> tuple[str, KeyRecord]:
    """A key and what is stored of it. `scopes` has commas between them.

    Raises:
        ValueError: a name, a scope, a time or a rate that cannot be.
    """
    if expires_days is not None and not 0 < expires_days <= MAX_DAYS:
        raise ValueError(f"expires_days is {expires_days:g}: more than 0, at most {MAX_DAYS}")
    key = new_key()
    fields = {
        "name": name,
        "sha256": hash_of(key),
        "scopes": tuple(scope.strip() for scope in scopes.split(",")),
        "expires": now + datetime.timedelta(days=expires_days) if expires_days else None,
        "rate_per_s": rate_per_s,
    }
    try:
        return key, KeyRecord.model_validate(fields)
    except ValidationError as error:
        raise ValueError(describe(error, KeyRecord)) from None


def hash_of(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def parse_keys(text: str) -> KeyFile:
    """The file's content.

    Raises:
        ValueError: what is wrong and where; no value is repeated, for it might be a key.
    """
    try:
        return KeyFile.model_validate_json(text)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, f['loc'])) or 'keys'}: {f['msg']}" for f in error.errors()]
        raise ValueError(f"not a file of keys: {'; '.join(told)}") from None


def by_hash(keys: Iterable[KeyRecord]) -> dict[str, KeyRecord]:
    """Keys as `find_key` looks them up."""
    return {key.sha256: key for key in keys}


def find_key(keys: Mapping[str, KeyRecord], key: str, now: datetime.datetime) -> Principal:
    """Who has a key.

    Raises:
        Unauthorised: the key is unknown or has expired.
    """
    record = keys.get(hash_of(key))
    if record is None:
        raise Unauthorised("unknown key")
    if record.expires is not None and record.expires <= now:
        raise Unauthorised(f"expired key {record.name}")
    return Principal(record.name, frozenset(record.scopes), record.rate_per_s)

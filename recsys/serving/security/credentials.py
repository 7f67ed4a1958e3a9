"""From a request's headers to the caller: an API key or a token, exactly one of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.datastructures import Headers

from recsys.config import SecurityConfig
from recsys.config.security import TokenConfig
from recsys.serving.security.keys import KeyRecord, by_hash, find_key, parse_keys
from recsys.serving.security.principal import Principal, Unauthorised
from recsys.serving.security.reloaded import Reloaded
from recsys.serving.security.tokens import TokenReader, parse_token_key

NO_KEYS = (
    "require_auth is true and there are no keys: make one by `python -m ray_jobs.api_key --file "
    "keys.json --name shop --scopes read,events` and set security.keys_file, or set "
    "security.tokens; for a laptop alone set security.require_auth = false"
)
NOBODY = "no credentials"


class Credentials:
    """All keys, and the reader of tokens if tokens are accepted."""

    def __init__(
        self,
        config: SecurityConfig,
        keys: str | None,
        token_key: str | None,
        clock: Callable[[], float],
        now: Callable[[], datetime.datetime],
    ) -> None:
        """`keys` is the text of a file of keys, in place of `config.keys_file`.

        Raises:
            ValueError: there is nothing to let anybody in, too much, or a key is not one.
        """
        self._now = now
        self._keys = _follow_keys(config, keys, clock)
        key = _follow_token_key(config, token_key, clock)
        self._tokens = TokenReader(config.tokens, key) if config.tokens and key else None
        if not self._keys() and self._tokens is None:
            raise ValueError(NO_KEYS)

    def principal_of(self, headers: Headers) -> Principal:
        """Who calls.

        Raises:
            Unauthorised: nobody known.
        """
        credential = _credential(headers)
        if "." in credential:  # keys have no dot, tokens have two
            if self._tokens is None:
                raise Unauthorised("token, but none are accepted")
            return self._tokens.principal_of(credential)
        return find_key(self._keys(), credential, self._now())


def _credential(headers: Headers) -> str:
    bearers, keys = headers.getlist("authorization"), headers.getlist("x-api-key")
    if not bearers and not keys:
        raise Unauthorised(NOBODY)
    if len(bearers) + len(keys) > 1:
        raise Unauthorised("several credentials")
    if keys:
        return keys[0].strip()
    scheme, _, credential = bearers[0].strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorised("not a Bearer scheme")
    return credential.strip()


def _parse(text: str) -> Mapping[str, KeyRecord]:
    return by_hash(parse_keys(text).keys)


def _follow_keys(
    config: SecurityConfig, text: str | None, clock: Callable[[], float]
) -> Callable[[], Mapping[str, KeyRecord]]:
    if text is not None and config.keys_file:
        raise ValueError("keys come from security.keys_file or from the environment, not from both")
    if config.keys_file:
        return Reloaded(Path(config.keys_file), _parse, config.check_files_s, clock)
    keys = _parse(text) if text is not None else {}
    return lambda: keys


def _follow_token_key(
    config: SecurityConfig, text: str | None, clock: Callable[[], float]
) -> Callable | None:
    tokens = config.tokens
    if tokens is None:
        if text is not None:
            raise ValueError("there is a key for tokens; set security.tokens to accept them")
        return None
    if (text is None) == (tokens.key_file is None):
        raise ValueError(
            "tokens need one key: security.tokens.key_file, or one from the environment"
        )
    algorithm = tokens.algorithm
    if tokens.key_file:
        return _follow_token_file(tokens, tokens.key_file, config.check_files_s, clock)
    key = parse_token_key(text or "", algorithm)
    return lambda: key


def _follow_token_file(
    tokens: TokenConfig, path: str, every_s: float, clock: Callable[[], float]
) -> Reloaded:
    return Reloaded(
        Path(path), lambda text: parse_token_key(text, tokens.algorithm), every_s, clock
    )

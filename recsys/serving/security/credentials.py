"""From a request's headers to the caller: an API key or a token, exactly one of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.datastructures import Headers

from recsys.config import SecurityConfig
from recsys.config.security import TokenConfig
from recsys.serving.security.key_set import KeySet
from recsys.serving.security.keys import KeyRecord, by_hash, find_key, parse_keys
from recsys.serving.security.principal import Principal, Unauthorised, UnknownKey
from recsys.serving.security.reloaded import Reloaded
from recsys.serving.security.tokens import TokenKey, TokenReader, parse_token_key

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
        self._key_set = _key_set(config, token_key, clock)
        key_of = self._key_set.key_of if self._key_set else None
        key_of = key_of or _follow_token_key(config, token_key, clock)
        self._tokens = TokenReader(config.tokens, key_of) if config.tokens and key_of else None
        if not self._keys() and self._tokens is None:
            raise ValueError(NO_KEYS)

    async def find(self, headers: Headers) -> Principal:
        """Who calls; waits only where a token names a key that may be new.

        Raises:
            Unauthorised: nobody known.
        """
        if self._key_set is None:
            return self.principal_of(headers)
        self._key_set.keep_fresh()
        try:
            return self.principal_of(headers)
        except UnknownKey:
            if not await self._key_set.refreshed():
                raise
        return self.principal_of(headers)

    def principal_of(self, headers: Headers) -> Principal:
        """Who calls, by the keys that are known.

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


def _key_set(config: SecurityConfig, text: str | None, clock: Callable[[], float]) -> KeySet | None:
    if config.tokens is None or config.tokens.jwks_url is None:
        return None
    if text is not None:
        raise ValueError("keys of tokens come from jwks_url or from the environment, not from both")
    return KeySet(config.tokens, clock)


def _follow_token_key(
    config: SecurityConfig, text: str | None, clock: Callable[[], float]
) -> Callable[[str], TokenKey] | None:
    tokens = config.tokens
    if tokens is None:
        if text is not None:
            raise ValueError("there is a key for tokens; set security.tokens to accept them")
        return None
    if (text is None) == (tokens.key_file is None):
        raise ValueError(
            "tokens need one key: security.tokens.key_file or jwks_url, or one from the environment"
        )
    algorithm = tokens.algorithm
    if tokens.key_file:
        follow = _follow_token_file(tokens, tokens.key_file, config.check_files_s, clock)
        return lambda _: follow()
    key = parse_token_key(text or "", algorithm)
    return lambda _: key


def _follow_token_file(
    tokens: TokenConfig, path: str, every_s: float, clock: Callable[[], float]
) -> Reloaded:
    return Reloaded(
        Path(path), lambda text: parse_token_key(text, tokens.algorithm), every_s, clock
    )

"""Public keys that an identity provider publishes at a URL (RFC 7517), so that it may rotate them.

A token names its key by `kid`. Keys are fetched beside the requests, never by waiting in between:
again when they are old, and at once where a token names one that is not known, but for all such
tokens together no more often than every `jwks_cooldown_s`. A provider that does not answer costs
nothing but new keys: those that were known stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import jwt

from recsys.config.security import TokenConfig
from recsys.serving.security.principal import Unauthorised, UnknownKey
from recsys.serving.security.tokens import TokenKey, fitting_key

log = logging.getLogger(__name__)


class KeySet:
    """The keys at `config.jwks_url` that may sign; `clock` counts seconds.

    Fetched when it is made: a service starts without its provider, but then knows no token.
    """

    def __init__(self, config: TokenConfig, clock: Callable[[], float]) -> None:
        assert config.jwks_url is not None
        self._config, self._clock = config, clock
        timeout = config.jwks_timeout_s
        self._client = jwt.PyJWKClient(config.jwks_url, cache_jwk_set=False, timeout=timeout)
        self._keys: dict[str, TokenKey] = {}
        self._tried = clock()
        self._fetching: asyncio.Task[None] | None = None
        self._fetch()

    def key_of(self, token: str) -> TokenKey:
        """The key that a token names.

        Raises:
            Unauthorised: it names none.
            UnknownKey: there is no such key, or not yet.
        """
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as error:
            raise Unauthorised(f"token refused: {type(error).__name__}") from None
        if not isinstance(kid, str):
            raise Unauthorised("token without a kid")
        if kid not in self._keys:
            raise UnknownKey("token of an unknown key")
        return self._keys[kid]

    def keep_fresh(self) -> None:
        """Fetch again if the keys are old, without waiting for it; to be called in a loop."""
        if self._clock() - self._tried >= self._config.jwks_refresh_s:
            self._start()

    async def refreshed(self) -> bool:
        """Fetch, or wait for a fetch that goes on; False where the last one was just now."""
        if self._fetching is None or self._fetching.done():
            if self._clock() - self._tried < self._config.jwks_cooldown_s:
                return False
            self._start()
        assert self._fetching is not None
        await asyncio.shield(self._fetching)
        return True

    def _start(self) -> None:
        self._tried = self._clock()
        self._fetching = asyncio.ensure_future(asyncio.to_thread(self._fetch))

    def _fetch(self) -> None:
        try:
            found = jwt.PyJWKSet.from_dict(self._client.fetch_data())
        except (jwt.PyJWTError, OSError, ValueError) as error:
            log.error("%s cannot be used, known keys stay: %s", self._config.jwks_url, error)
            return
        self._keys = dict(filter(None, map(self._usable, found.keys)))
        if not self._keys:
            log.error("%s has no key for %s", self._config.jwks_url, self._config.algorithm)

    def _usable(self, key: jwt.PyJWK) -> tuple[str, TokenKey] | None:
        """A key that is for signatures, by our algorithm, and strong enough; None for others."""
        if key.key_id is None or key.public_key_use not in ("sig", None):
            return None
        try:
            return key.key_id, fitting_key(key.key, self._config.algorithm)
        except ValueError:
            return None

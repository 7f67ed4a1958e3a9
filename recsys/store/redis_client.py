"""A Redis server that answers in time or is said not to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError
from redis.retry import Retry

from recsys.store.histories import StoreUnavailable


class RedisClient:
    """The server behind a URL without a password; nothing is connected before the first call.

    Messages call it `name` and its settings those of `section`.
    """

    def __init__(
        self, name: str, section: str, url: str, timeout_s: float, password: str | None
    ) -> None:
        self._name, self._section = name, section
        self._url, self._timeout_s, self._password = url, timeout_s, password
        self.redis = redis.Redis.from_url(
            url,
            password=password,
            decode_responses=True,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once more at once, for a connection that the server had closed; every call may be
            # made twice. A time-out is not tried again, or a call would take twice as long.
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Around each call.

        Raises:
            StoreUnavailable: what is wrong with the server, and what to check.
        """
        try:
            yield
        except redis.RedisError as error:
            # Not chained: a server's complaint may repeat what it was sent, with the password.
            raise StoreUnavailable(self._explain(error)) from None

    def _explain(self, error: redis.RedisError) -> str:
        said = str(error)
        if self._password:
            said = said.replace(self._password, "***")
        return f"the {self._name} {self._url} failed: {self._advice(error)} ({said})"

    def _advice(self, error: redis.RedisError) -> str:
        if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
            return "check the user and the password"
        if isinstance(error, redis.TimeoutError):
            return (
                f"no answer within {self._timeout_s} s; check the network and the server's load, "
                f"or raise {self._section}.timeout_s"
            )
        if isinstance(error, redis.ConnectionError):
            return f"check {self._section}.url, that the server runs, and the network"
        return "check the server's log, memory and role"

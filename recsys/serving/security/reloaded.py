"""A file's content that follows the file: keys are changed without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class Reloaded(Generic[T]):
    """What a small local file says now; what it said before while it cannot be read.

    It is read, not asked for its time: within a clock tick a file changes and keeps its time.
    """

    def __init__(
        self, path: Path, parse: Callable[[str], T], every_s: float, clock: Callable[[], float]
    ) -> None:
        """Read the file; afterwards it is looked at every `every_s` seconds, when asked for.

        Raises:
            ValueError: the file cannot be read or says something else.
        """
        self._path, self._parse = path, parse
        self._every_s, self._clock = every_s, clock
        self._next = clock() + every_s
        self._seen: bytes | str = b""
        try:
            self._seen = path.read_bytes()
            self._value = parse(self._seen.decode())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def __call__(self) -> T:
        """The newest value that could be read."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._every_s
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            seen = self._path.read_bytes()
        except OSError as error:
            self._keep_old(str(error), error)
            return
        if seen == self._seen:
            return
        try:
            self._value = self._parse(seen.decode())
        except ValueError as error:
            self._keep_old(seen, error)
            return
        self._seen = seen
        log.info("%s was read again", self._path)

    def _keep_old(self, seen: bytes | str, error: Exception) -> None:
        if seen != self._seen:  # once for each change, not every second
            log.error("%s cannot be used, what it said before stays: %s", self._path, error)
        self._seen = seen

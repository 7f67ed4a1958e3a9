"""The experiments that run, from a file that is read again when it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from recsys.config import ExperimentConfig, VariantConfig, parse_experiments
from recsys.experiments.assignment import assign
from recsys.storage import read_bytes

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0
LOOK_FAR_EVERY_S = 5.0
"""The same for an object store, where a look is a request that costs money."""


class ExperimentFile:
    """Knows each user's variants. A broken new file changes nothing.

    A file in an object store is read by a thread, so that no request waits for it; the requests
    meanwhile are answered by what it said before.

    Raises:
        ValueError: the first file cannot be read.
    """

    def __init__(self, path: str | None, now: Callable[[], float] = time.time) -> None:
        self._path, self._now = path, now
        self._is_far = "://" in (path or "")
        self._every_s = LOOK_FAR_EVERY_S if self._is_far else LOOK_EVERY_S
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._content, self._looked = b"", 0.0
        self._experiments: tuple[ExperimentConfig, ...] = ()
        if path is not None:
            self._read(path)

    def variants_of(self, user_id: str | None) -> dict[str, VariantConfig]:
        """The user's variant by experiment; none for nobody in particular."""
        if self._path is None or user_id is None:
            return {}
        if self._is_due():
            self._start_look(self._path)
        experiments = self._experiments
        found = assign(experiments, user_id, datetime.fromtimestamp(self._now(), UTC))
        variants = {e.name: {v.name: v for v in e.variants} for e in experiments}
        return {name: variants[name][variant] for name, variant in found.items()}

    def _is_due(self) -> bool:
        with self._lock:
            if self._now() < self._looked + self._every_s:
                return False
            self._looked = self._now()
            return True

    def _start_look(self, path: str) -> None:
        if self._is_far:
            threading.Thread(
                target=self._look, args=(path,), name="experiments", daemon=True
            ).start()
        else:
            self._look(path)

    def _look(self, path: str) -> None:
        if not self._looking.acquire(blocking=False):
            return  # a store that does not answer is asked once at a time
        try:
            self._read(path)
        except ValueError as error:
            log.error("the experiments stay as they were: %s", error)
        finally:
            self._looking.release()

    def _read(self, path: str) -> None:
        content = read_bytes(path)
        if content != self._content:
            self._content = content  # first, so that a broken file is told once
            self._experiments = parse_experiments(content.decode(), path).experiments

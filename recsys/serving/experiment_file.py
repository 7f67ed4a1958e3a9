"""The experiments that run, from a file that is read again when it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from recsys.config import ExperimentConfig, VariantConfig, parse_experiments
from recsys.experiments.assignment import assign

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0


class ExperimentFile:
    """Knows each user's variants. A broken new file changes nothing.

    Raises:
        ValueError: the first file cannot be read.
    """

    def __init__(self, path: str | None, now: Callable[[], float] = time.time) -> None:
        self._path = Path(path) if path else None
        self._now = now
        self._lock = threading.Lock()
        self._text, self._looked = "", 0.0
        self._experiments: tuple[ExperimentConfig, ...] = ()
        if self._path is not None:
            self._read(self._path)

    def variants_of(self, user_id: str | None) -> dict[str, VariantConfig]:
        """The user's variant by experiment; none for nobody in particular."""
        if self._path is None or user_id is None:
            return {}
        self._look_again(self._path)
        experiments = self._experiments
        found = assign(experiments, user_id, datetime.fromtimestamp(self._now(), UTC))
        variants = {e.name: {v.name: v for v in e.variants} for e in experiments}
        return {name: variants[name][variant] for name, variant in found.items()}

    def _look_again(self, path: Path) -> None:
        with self._lock:
            if self._now() < self._looked + LOOK_EVERY_S:
                return
            self._looked = self._now()
            try:
                self._read(path)
            except (ValueError, OSError) as error:
                log.error("the experiments stay as they were: %s", error)

    def _read(self, path: Path) -> None:
        text = path.read_text()
        if text != self._text:
            self._text = text  # first, so that a broken file is told once
            self._experiments = parse_experiments(text, str(path)).experiments

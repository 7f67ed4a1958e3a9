"""Work that a thread does now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeated:
    """Does `work` every `seconds`, when it is woken, and once more when it is stopped."""

    def __init__(self, name: str, work: Callable[[], None], seconds: float) -> None:
        self._work, self._seconds = work, seconds
        self._woken, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Do the work soon."""
        self._woken.set()

    def stop(self, timeout_s: float) -> bool:
        """Do the work a last time; returns whether that was done in time."""
        self._stopped = True
        self._woken.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped:
            self._woken.wait(self._seconds)
            self._woken.clear()
            self._work()
        self._work()

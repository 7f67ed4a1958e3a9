"""Token buckets in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """A bucket for each name, full at first; the longest unseen name is forgotten.

    A name that was forgotten starts full again: with more names than there is room for, somebody
    may get more than his rate, but memory stays bounded.
    """

    def __init__(self, max_names: int, clock: Callable[[], float]) -> None:
        self._max_names, self._clock = max_names, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._levels)

    def take(self, name: str, rate_per_s: float, burst: float) -> float:
        """Take one token: 0.0, or the seconds until there is one, and then none is taken.

        The bucket holds `burst` tokens and gains `rate_per_s` a second.
        """
        now = self._clock()
        level, seen = self._levels.pop(name, (burst, now))
        level = min(burst, level + rate_per_s * max(0.0, now - seen))
        wait = max(0.0, (1.0 - level) / rate_per_s)
        self._levels[name] = (level if wait else level - 1.0, now)
        if len(self._levels) > self._max_names:
            self._levels.popitem(last=False)
        return wait

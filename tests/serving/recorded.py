"""Stands in for Ray's metrics, which go to a node agent: keeps what is recorded."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping
from typing import Any

Key = tuple[str, tuple[tuple[str, str], ...]]


class Recorded:
    """Values by name and tags; a tag that was not declared is refused, as Ray refuses it."""

    def __init__(self) -> None:
        self.values: dict[Key, list[float]] = {}

    def kind(self, name: str, _: str = "", tag_keys: tuple[str, ...] = (), **__: Any) -> _Metric:
        """In place of Ray's classes."""
        return _Metric(self, name, tag_keys)

    def of(self, name: str, **tags: str) -> list[float]:
        """All that was recorded."""
        return self.values.get((name, tuple(sorted(tags.items()))), [])

    def names(self) -> Counts[str]:
        """How often each metric was recorded."""
        counted: Counts[str] = Counts()
        for (name, _), values in self.values.items():
            counted[name] += len(values)
        return counted


class _Metric:
    def __init__(self, recorded: Recorded, name: str, tag_keys: tuple[str, ...]) -> None:
        self._recorded, self._name, self._tag_keys = recorded, name, set(tag_keys)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        assert set(tags or {}) == self._tag_keys
        key = self._name, tuple(sorted((tags or {}).items()))
        self._recorded.values.setdefault(key, []).append(value)

    set = observe

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        assert value > 0  # Ray refuses the rest
        self.observe(value, tags)

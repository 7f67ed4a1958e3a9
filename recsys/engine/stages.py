"""The parts of an answer, told to whoever watches: metrics and traces when serving, else nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

Watch = Callable[[str], AbstractContextManager[Any]]
"""What is entered for the time of a part, by the part's name."""

_watch: ContextVar[Watch] = ContextVar("watch", default=nullcontext)


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Tell `watch` of all parts inside, in this context and in threads that are given it."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def stage(name: str) -> AbstractContextManager[Any]:
    """A part of the answer: `filter`, `encode` or `score`."""
    return _watch.get()(name)

"""A store of histories that never sees an id: users are called by their pseudonyms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recsys.store.histories import Appended, HistoryStore, StoredEvent


class PseudonymousStore:
    """A store behind a function from ids to pseudonyms, such as a keyed hash."""

    def __init__(self, store: HistoryStore, name_of: Callable[[str], str]) -> None:
        self._store = store
        self._name_of = name_of

    def append(self, user_id: str, events: Sequence[StoredEvent]) -> Appended:
        """See `HistoryStore`."""
        return self._store.append(self._name_of(user_id), events)

    def last(self, user_id: str, count: int) -> list[StoredEvent]:
        """See `HistoryStore`."""
        return self._store.last(self._name_of(user_id), count)

    def version(self, user_id: str) -> str:
        """See `HistoryStore`."""
        return self._store.version(self._name_of(user_id))

    def delete(self, user_id: str) -> int:
        """See `HistoryStore`."""
        return self._store.delete(self._name_of(user_id))

    def healthy(self) -> bool:
        """See `HistoryStore`."""
        return self._store.healthy()

    def close(self) -> None:
        """See `HistoryStore`."""
        self._store.close()

"""What is kept of histories: an unchanged one costs no forward pass, one new event one step.

Shapes: B histories, H positions, D embedding size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from cachetools import LRUCache

from recsys.data.collate import collate_histories
from recsys.index.item_index import ItemIndex
from recsys.models.recommender_model import RecommenderModel
from recsys.models.user_encoder import UserState
from recsys.schema import History

MAX_NEW = 8
"""New events that a kept state is still looked for."""
LONG = 128
"""Events from which on a state is kept. A step is done a user at a time, short histories are read
faster together: 32 of 50 events .4 ms each, of 128 events 1.4, of 256 events 3.6, a step after
them .8, 1.0 and 1.2 ms (one thread, `benchmarks/user_state.py` and a batch beside it)."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The vector (D,) of a history, and of a long one the state behind it."""

    user_D: torch.Tensor
    state: UserState | None

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        state = self.state or []
        kept = [half for past in state for layer in past for half in layer]
        return sum(tensor.nbytes for tensor in [self.user_D, *kept])


class UserStates:
    """Encodes histories by one model and one index, whose item vectors do not change.

    Histories are known by their content, so that a changed one is never taken for another. The
    least recently asked go first where there is no more room. Threads may ask at once.
    """

    def __init__(
        self, model: RecommenderModel, index: ItemIndex, max_history: int, megabytes: int
    ) -> None:
        self._model = model
        self._index = index
        self._max_history = max_history
        self._kept: LRUCache[bytes, _Kept] = LRUCache(megabytes << 20, lambda kept: kept.num_bytes)
        self._lock = Lock()
        self.counts = {"unchanged": 0, "extended": 0, "read": 0}
        """Histories that were answered from memory, by a step, and by reading all of them."""

    @torch.inference_mode()
    def encode(self, histories: Sequence[History]) -> torch.Tensor:
        """(B, D) the user vector after each history; none may be empty."""
        recent = [history.last(self._max_history) for history in histories]
        users: list[torch.Tensor | None] = [self._remembered(history) for history in recent]
        missing = [row for row, user in enumerate(users) if user is None]
        if missing:
            for row, user_D in zip(missing, self._read([recent[r] for r in missing]), strict=True):
                users[row] = user_D
        self._count("read", len(missing))
        return torch.stack([user for user in users if user is not None])

    def _remembered(self, history: History) -> torch.Tensor | None:
        kept = self._find(history)
        if kept is not None:
            self._count("unchanged", 1)
            return kept.user_D
        if len(history) <= LONG or not self._model.user_encoder.can_read_on:
            return None
        for num_new in range(1, MAX_NEW + 1):
            kept = self._find(history.take(slice(0, len(history) - num_new)))
            if kept is not None and kept.state is not None:
                self._count("extended", 1)
                return self._step(history, kept.state)
        return None

    def _step(self, history: History, state: UserState) -> torch.Tensor:
        batch = collate_histories([history], self._max_history)
        items_1HD = self._index.vectors_of(batch.item_indexes)
        users_1MD, grown = self._model.user_encoder.read_on(items_1HD, batch, state)
        self._keep(history, _Kept(users_1MD[0, -1].clone(), grown))
        return users_1MD[0, -1]

    def _read(self, histories: Sequence[History]) -> torch.Tensor:
        batch = collate_histories(histories, self._max_history)
        items_BHD = self._index.vectors_of(batch.item_indexes)
        longest = max(len(history) for history in histories)
        if longest < LONG or not self._model.user_encoder.can_read_on:
            users_BD, state = self._model.encode_users(items_BHD, batch), None
        else:
            users_BHD, state = self._model.user_encoder.read_on(items_BHD, batch, None)
            users_BD = users_BHD[torch.arange(len(histories)), batch.lengths - 1]
        for row, history in enumerate(histories):
            own = _row(state, row, len(history)) if state and len(history) >= LONG else None
            self._keep(history, _Kept(users_BD[row].clone(), own))
        return users_BD

    def _find(self, history: History) -> _Kept | None:
        with self._lock:
            return self._kept.get(_digest(history))

    def _keep(self, history: History, kept: _Kept) -> None:
        with self._lock:
            if kept.num_bytes <= self._kept.maxsize:
                self._kept[_digest(history)] = kept

    def _count(self, name: str, number: int) -> None:
        with self._lock:
            self.counts[name] += number


def _row(state: UserState, row: int, length: int) -> UserState:
    """One history's own copy of a batch's state, without its padding."""
    rows = slice(row, row + 1)
    return [
        [(k[rows, :, :length].clone(), v[rows, :, :length].clone()) for k, v in p] for p in state
    ]


def _digest(history: History) -> bytes:
    columns = (history.item_indexes, history.timestamps, history.events)
    digest = hashlib.blake2b(digest_size=16)
    for column in columns:
        digest.update(column.astype("int64").tobytes())
    return digest.digest()

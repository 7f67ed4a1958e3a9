"""Changes of items on their way: from a route to the log, and from the log to every model.

Each replica looks at the log every few seconds and applies what is new, in order. A model that is
loaded, at the start or by a promotion, gets all that its index cannot have, before it answers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from recsys.serving.models import Models
from recsys.serving.served_model import ServedModel
from recsys.store.histories import StoreUnavailable
from recsys.store.item_log import ItemChange, ItemLog, ItemRow
from recsys.store.repeated import Repeated

AT_ONCE = 256
"""Changes that are applied together: the arrays of a catalogue are made anew once for all."""
CLOSE_S = 5.0

log = logging.getLogger(__name__)


class ItemChanges:
    """One replica's side of an item log."""

    def __init__(self, item_log: ItemLog, poll_s: float) -> None:
        self._log, self._poll_s = item_log, poll_s
        self._models: Models | None = None
        self._thread: Repeated | None = None

    def follow(self, models: Models) -> None:
        """Apply what is in the log to the models, and from now on what comes."""
        self._models = models
        self.step()
        self._thread = Repeated("follow-items", self.step, self._poll_s)

    def append(self, item_id: str, row: ItemRow | None) -> int:
        """Log a change, which is applied here soon; returns its number.

        Raises:
            StoreUnavailable: the log does not answer; nothing is changed.
        """
        assert self._thread is not None
        number = self._log.append(item_id, row)
        self._thread.wake()
        return number

    def has(self, number: int) -> bool:
        """Whether a change is applied to all models here."""
        assert self._models is not None
        return all(model.changed_to >= number for model in self._models.distinct())

    def step(self) -> None:
        """Bring the models up to the log; where it does not answer, the next step will."""
        assert self._models is not None
        for before in self._models.distinct():
            after = self.caught_up(before)
            if after is not before:
                self._models.replace(before, after)

    def caught_up(self, model: ServedModel) -> ServedModel:
        """The model with all changes that it does not have, as far as the log answers."""
        try:
            while changes := self._log.after(model.changed_to, AT_ONCE):
                model = _applied(model, changes)
        except StoreUnavailable as error:
            log.error("items are as they were: %s", error)
        return model

    def close(self) -> None:
        """Stop following."""
        if self._thread is not None:
            self._thread.stop(CLOSE_S)
        self._log.close()


def _applied(model: ServedModel, changes: Sequence[ItemChange]) -> ServedModel:
    """With the changes; one that does not fit the model's items is told and left out."""
    try:
        return model.changed(changes)
    except ValueError as error:
        if len(changes) == 1:
            log.error("change %d does not fit this index: %s", changes[0].number, error)
            return model.passed(changes[0].number)
    for one in changes:
        model = _applied(model, [one])
    return model

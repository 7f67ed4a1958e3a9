"""Why an item is answered: which events of the history moved its score, by leaving each one out.

Leave-one-out is exact for a single event: what is compared are two scores that the model gives.
Events that say the same stand in for one another, and then none of them moves much.

Shapes: K items to explain, H events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.engine.catalogue import ATTRIBUTES, Catalogue
from recsys.engine.scoring import Scorer
from recsys.schema import Explanation, History

MAX_EVENTS = 3
"""Events that an explanation names."""
MIN_CONTRIBUTION = 1e-5
"""A smaller difference of two cosines may be float32 rounding."""
MAX_TITLE = 60
"""Characters of a title in a sentence."""
NO_EVENT = "No single event of the history raised its score."
SEEN = "it is in the history itself"


class Explainer:
    """Scores histories with and without each event."""

    def __init__(self, scorer: Scorer, catalogue: Catalogue, max_history: int) -> None:
        self._scorer = scorer
        self._catalogue = catalogue
        self._max_history = max_history

    def explain(self, history: History, items: Sequence[int]) -> list[Explanation]:
        """One explanation for each item index; by popularity where the history is empty.

        Costs one pass of H + 1 histories through the user encoder, for any number of items.
        """
        if not len(history):
            return [self._popular(item) for item in items]
        scores_K, moved_HK = self.leave_one_out(history, items)
        seen = history.last(len(moved_HK)).item_indexes
        return [
            self._explain_one(item, float(score), seen, moved_H)
            for item, score, moved_H in zip(items, scores_K, moved_HK.T, strict=True)
        ]

    def leave_one_out(
        self, history: History, items: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (K,), and by how much each falls without each event (H, K), oldest event first.

        H are the newest events that the model sees; no older one moves up where one is left out.
        An only event is compared with a score of 0, which is what a history says that is not there.
        """
        older = history.take(slice(None, -self._max_history))
        history = history.last(self._max_history)
        variants = [history, *(_without(history, event) for event in range(len(history)))]
        scores_VK = self._scorer.score([v for v in variants if len(v)], items, older).numpy()
        if len(history) == 1:
            return scores_VK[0], scores_VK
        return scores_VK[0], scores_VK[0] - scores_VK[1:]

    def _popular(self, item: int) -> Explanation:
        counts = self._catalogue.train_counts
        share = int(counts[item]) / max(1, int(counts.sum()))
        said = f"Popular: taken in {_percent(share)} of all events."
        sentence = said if share else "No history to go by, and no event of this item yet."
        return Explanation(self._catalogue.recommendation(item, share), [], [], sentence)

    def _explain_one(
        self, item: int, score: float, seen_H: np.ndarray, moved_H: np.ndarray
    ) -> Explanation:
        order = np.argsort(-moved_H, kind="stable")[:MAX_EVENTS]
        top = [int(event) for event in order if moved_H[event] > MIN_CONTRIBUTION]
        causes = [int(seen_H[event]) for event in top]
        told = [
            self._catalogue.recommendation(c, float(moved_H[e]))
            for c, e in zip(causes, top, strict=True)
        ]
        others = [cause for cause in dict.fromkeys(causes) if cause != item]
        shared = self._shared(item, others)
        return Explanation(
            self._catalogue.recommendation(item, score),
            [(cause.item_id, cause.title, cause.score) for cause in told],
            [(name, value) for name, value, _ in shared],
            self._sentence(others, shared, item in causes),
        )

    def _shared(self, item: int, others: list[int]) -> list[tuple[str, str, list[int]]]:
        """Attributes of the item, and which of the `others` have the same."""
        found = []
        for name in ATTRIBUTES:
            value, *values = self._catalogue.attribute(name, [item, *others])
            alike = [other for other, its in zip(others, values, strict=True) if its == value]
            if value is not None and alike:
                found.append((name, value, alike))
        return found

    def _sentence(
        self, others: list[int], shared: list[tuple[str, str, list[int]]], is_seen: bool
    ) -> str:
        if not others:
            return f"Because {SEEN}." if is_seen else NO_EVENT
        by_all = [f"the {name} {value}" for name, value, alike in shared if alike == others]
        verb = "shares" if len(others) == 1 else "share"
        clause = f", which {verb} {_listed(by_all)}" if by_all else ""
        parts = [f"Because of {self._quoted(others)}{clause}."]
        for name, value, alike in shared:
            if alike != others:
                parts.append(f"It has the {name} {value} in common with {self._quoted(alike)}.")
        if is_seen:
            parts.append(f"Also, {SEEN}.")
        return " ".join(parts)

    def _quoted(self, items: list[int]) -> str:
        return _listed([f'"{_shortened(self._catalogue.name(item))}"' for item in items])


def _without(history: History, event: int) -> History:
    return history.take(np.arange(len(history)) != event)


def _listed(texts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *before, last = texts
    return f"{', '.join(before)} and {last}" if before else last


def _shortened(title: str) -> str:
    """By characters: Chinese has no spaces to cut at."""
    return title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 3].rstrip()}..."


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"

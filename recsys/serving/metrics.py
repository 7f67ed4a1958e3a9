"""What a replica counts, for Prometheus: Ray's node agent exports it with the replica's name.

Every name starts with `recsys_` (Prometheus sees `ray_recsys_...`). No tag holds an id of a user or
an item, or a text. Requests, errors, queues and waiting for a batch are Ray's own `ray_serve_...`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ray.serve.metrics import Counter, Gauge, Histogram

from recsys.engine.ranking import POPULAR
from recsys.schema import Answer
from recsys.serving.drift import ScoreDrift
from recsys.serving.served_model import ServedModel

LATENCY_MS = [0.1, 0.3, 1.0, 2, 5, 10, 20, 30, 40, 60, 80, 120, 200, 400, 1_000, 3_000]
SCORES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 3.0]
BATCHES = [1.0, 2, 4, 8, 16, 32, 64, 128, 256]
COVERAGE_EVERY = 1_000
"""Answers over which the coverage of the catalogue is counted before it starts again."""


class ServingMetrics:
    """The metrics of one replica."""

    def __init__(self) -> None:
        self._stage_ms = Histogram(
            "recsys_stage_latency_ms",
            "Milliseconds that a stage took",
            boundaries=LATENCY_MS,
            tag_keys=("stage",),
        )
        self._batch = Histogram(
            "recsys_batch_requests", "Requests of a forward pass", boundaries=BATCHES
        )
        self._answers = Counter(
            "recsys_answers_total",
            "Answers, by what made them",
            tag_keys=("route", "source"),  # pyright: ignore - Ray's hint allows one tag alone
        )
        self._unknown = Counter(
            "recsys_unknown_items_total",
            "Ids in requests that the catalogue does not have",
            tag_keys=("route",),
        )
        self._degraded = Counter(
            "recsys_degraded_total", "Answers made without something", tag_keys=("missing",)
        )
        self._cache = Counter(
            "recsys_cache_total",
            "Questions to a cache",
            tag_keys=("cache", "outcome"),  # pyright: ignore
        )
        self._events = Counter("recsys_events_total", "Events received", tag_keys=("outcome",))
        self._items = Counter(
            "recsys_item_changes_total", "Changes of items received", tag_keys=("outcome",)
        )
        self._top_score = Histogram(
            "recsys_top_score", "Score of the first item", boundaries=SCORES, tag_keys=("route",)
        )
        self._drift = Gauge(
            "recsys_score_drift",
            "Population stability index of the first item's score; 0 until it is known",
            tag_keys=("alias",),
        )
        self._coverage = Gauge(
            "recsys_coverage_share",
            f"Share of the catalogue in the last {COVERAGE_EVERY} answers",
        )
        self._scores: dict[str, tuple[str, ScoreDrift]] = {}
        self._answered: set[str] = set()
        self._since = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stage_ms.observe(1e3 * (time.perf_counter() - started), {"stage": name})

    def batch(self, num_requests: int) -> None:
        """Count the requests that are computed together."""
        self._batch.observe(num_requests)

    def answered(
        self, route: str, answer: Answer, model: ServedModel, degraded: Sequence[str] = ()
    ) -> None:
        """Count an answer."""
        self._answers.inc(1, {"route": route, "source": answer.source})
        if answer.unknown_items:
            self._unknown.inc(len(answer.unknown_items), {"route": route})
        for reason in degraded:
            self._degraded.inc(1, {"missing": reason.partition(":")[0]})
        if answer.items and answer.source != POPULAR:
            self._top_score.observe(answer.items[0].score, {"route": route})
        self._cover([item.item_id for item in answer.items], model.recommender.num_items)

    def scored(self, alias: str, version: str, score: float) -> None:
        """Watch the best score of a model's recommendation; a new version starts anew."""
        known, drift = self._scores.get(alias, ("", ScoreDrift()))
        if known != version:
            self._scores[alias] = version, drift = version, ScoreDrift()
            self._drift.set(0.0, {"alias": alias})
        moved = drift.add(score)
        if moved is not None:
            self._drift.set(moved, {"alias": alias})

    def cache(self, name: str, hit: bool) -> None:
        """Count a question to a cache."""
        self._cache.inc(1, {"cache": name, "outcome": "hit" if hit else "miss"})

    def events(self, outcome: str, count: int) -> None:
        """Count events; Ray refuses to count none."""
        if count:
            self._events.inc(count, {"outcome": outcome})

    def item_changed(self, outcome: str) -> None:
        """Count a change of an item."""
        self._items.inc(1, {"outcome": outcome})

    def _cover(self, item_ids: Sequence[str], num_items: int) -> None:
        self._answered.update(item_ids)
        self._since += 1
        if self._since == COVERAGE_EVERY:
            self._coverage.set(len(self._answered) / max(1, num_items))
            self._answered, self._since = set(), 0

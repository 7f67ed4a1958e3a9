"""A new model beside the old one: checked with golden requests, then flipped, or refused."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from recsys.artifact import Artifact
from recsys.engine.recommender import Event, Query, Recommender
from recsys.engine.search import FoundItem
from recsys.engine.shop_search import ShopQuery, ShopSearch
from recsys.registry import Alias, AliasName, Golden, GoldenSearch, Registry, Version
from recsys.storage import StorageError

NUM_GOLDEN = 16
GOLDEN_HISTORY, GOLDEN_TOP_K = 3, 10
MIN_AGREEMENT = 0.9
"""Share of the expected items that a sound copy answers: bf16 elsewhere may swap near ties."""
MAX_SECONDS = 2.0
"""All golden requests together; a model that is slower than that is not fit for a replica."""

T = TypeVar("T")
log = logging.getLogger(__name__)


def register_release(
    registry: Registry,
    checkpoint: Artifact,
    index: Artifact,
    ranker: Artifact | None,
    now: float,
) -> Version:
    """Check a model, and a final ranker where there is one, and add both to the registry.

    Raises:
        ValueError: an artifact is damaged or does not fit another, or answers are no answers.
    """
    recommender = Recommender.load(checkpoint, index, filter_seen=True)
    items = index.read_table("items.parquet", ["item_id", "title"])
    golden = golden_requests(recommender, items["item_id"].to_pylist())
    check_golden(recommender, golden)
    searches = []
    if ranker is not None:
        search = ShopSearch.load(checkpoint, index, recommender, ranker)
        searches = golden_searches(search, items["title"].to_pylist(), now)
        check_searches(search, searches, now)
    return registry.register(checkpoint, index, golden, now, ranker=ranker, searches=searches)


def golden_requests(recommender: Recommender, item_ids: list[str]) -> list[Golden]:
    """Histories of neighbours in the list of items, all over the catalogue, and their answers."""
    step = max(1, len(item_ids) // NUM_GOLDEN)
    histories = [item_ids[n : n + GOLDEN_HISTORY] for n in range(0, len(item_ids), step)]
    answers = recommender.recommend([_query(history) for history in histories])
    return [
        Golden(history=history, answer=[item.item_id for item in answer.items])
        for history, answer in zip(histories, answers, strict=True)
    ][:NUM_GOLDEN]


def check_golden(recommender: Recommender, golden: list[Golden]) -> None:
    """Answer the golden requests.

    Raises:
        ValueError: an answer is empty or not a number, not what was answered when the version was
            registered, or all took too long.
    """
    started = time.perf_counter()
    answers = recommender.recommend([_query(one.history) for one in golden])
    seconds = time.perf_counter() - started
    if any(not math.isfinite(item.score) for answer in answers for item in answer.items):
        raise ValueError("a golden request is answered with a score that is not a number")
    _check_same(
        "golden requests",
        [one.answer for one in golden],
        [[item.item_id for item in answer.items] for answer in answers],
        seconds,
    )


def golden_searches(
    search: ShopSearch, titles: Sequence[str | None], now: float
) -> list[GoldenSearch]:
    """Titles from all over the catalogue as they are searched for, and what is found at `now`."""
    named = [title for title in titles if title]
    texts = named[:: max(1, len(named) // NUM_GOLDEN)][:NUM_GOLDEN]
    return [
        GoldenSearch(text=text, answer=[item.item_id for item in _found(search, text, now)])
        for text in texts
    ]


def check_searches(search: ShopSearch, searches: Sequence[GoldenSearch], now: float) -> None:
    """Search for the golden texts, as if it were `now`, when they were registered: ages of items
    would move answers.

    Raises:
        ValueError: a score or probability is none, other items are found than when the version was
            registered, or all took too long.
    """
    started = time.perf_counter()
    answers = [_found(search, one.text, now) for one in searches]
    seconds = time.perf_counter() - started
    for item in (item for answer in answers for item in answer):
        chance = 0.0 if item.probability is None else item.probability
        if not (math.isfinite(item.score) and 0 <= chance <= 1):
            raise ValueError(f"a golden search finds a score or probability that is none: {item}")
    _check_same(
        "golden searches",
        [one.answer for one in searches],
        [[item.item_id for item in answer] for answer in answers],
        seconds,
    )


def _found(search: ShopSearch, text: str, now: float) -> list[FoundItem]:
    return search.search(ShopQuery(text, top_k=GOLDEN_TOP_K, now=now)).found.items


def _check_same(
    what: str, expected: Sequence[list[str]], answers: Sequence[list[str]], seconds: float
) -> None:
    wanted = sum(map(len, expected))
    same = sum(len({*one} & {*two}) for one, two in zip(expected, answers, strict=True))
    if same < MIN_AGREEMENT * wanted:
        raise ValueError(
            f"{what} are answered with {same} of the {wanted} items that this version was "
            "registered with: its files or this machine differ"
        )
    if seconds > MAX_SECONDS:
        raise ValueError(f"{len(answers)} {what} took {seconds:.1f} s, over {MAX_SECONDS}")


def _query(history: list[str]) -> Query:
    # Its own items are excluded, so that the answer is one with and without `filter_seen`.
    return Query([Event(item_id) for item_id in history], GOLDEN_TOP_K, exclude=history)


@dataclass(frozen=True)
class Refusal:
    """A version that was not taken, and why."""

    version: str
    reason: str


class Follower(Generic[T]):
    """Follows an alias of a registry in a thread of its own.

    `load` makes what serves of a version and checks it; `flip` puts it in place. Where the store
    does not answer, it is tried again at the next look. Whatever else is wrong with a version, what
    serves goes on serving, and the version is not tried again until the alias moves.
    """

    def __init__(
        self,
        registry: Registry,
        alias: AliasName,
        load: Callable[[Version], T],
        flip: Callable[[T], None],
        poll_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._alias: AliasName = alias
        self._load, self._flip = load, flip
        self._poll_s, self._now = poll_s, now
        self._generation = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"follow-{alias}", daemon=True)
        self.refused: Refusal | None = None

    def start(self, seen: Alias | None) -> None:
        """Follow from an alias on that serves already, if any."""
        self._generation = seen.generation if seen else 0
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a version that is being loaded is dropped."""
        self._stop.set()

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.step()

    def step(self) -> None:
        """Look once, and load and flip if the alias has moved."""
        try:
            alias = self._registry.alias(self._alias)
        except ValueError as error:
            log.warning("the registry cannot be read; the model stays: %s", error)
            return
        if alias is None or alias.generation == self._generation:
            return
        try:
            loaded = self._load(self._registry.version(alias.version))
        except StorageError as error:
            log.warning("version %s cannot be read; it is tried again: %s", alias.version, error)
            return
        except Exception as error:  # noqa: BLE001 - the old model must outlive any new one
            self._generation = alias.generation
            self.refused = Refusal(alias.version, str(error))
            log.error("version %s is refused; the model stays: %r", alias.version, error)
            return
        self._generation = alias.generation
        if not self._stop.wait(max(0.0, alias.flip_at - self._now())):
            self._flip(loaded)
            self.refused = None
            log.info("version %s is %s", alias.version, self._alias)

"""A generated shop with known truth: items, shoppers, what they did, what they searched for.

Every item has one trait of each kind (category, type, material, colour, use, brand). The same
traits make its text and draw its buyers, so a model that reads can know what one that only counts
must learn. A shopper moves from type to type as a Markov chain within a session, and by taste
between sessions; within a type, popularity times the exponential of taste decides. Taste drifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config import WorldConfig
from recsys.data.synthetic_catalogue import (
    BRAND,
    CATEGORIES,
    COLOUR,
    KINDS,
    MATERIAL,
    TYPE,
    USE,
    Catalogue,
    item_text,
    make_catalogue,
    query_text,
)
from recsys.data.synthetic_demand import DAY, Demand, make_demand
from recsys.schema import EVENT, ITEM_ID, ORDER, TIMESTAMP, USER_ID, VALUE

START = 1_735_689_600
"""First second of the log: 2025-01-01 00:00 UTC."""
EVENT_SHARES = {"view": 0.70, "click": 0.15, "cart": 0.09, "purchase": 0.06}

_KIND_SIZES = np.array([len(words) for words in KINDS.values()])
_KIND_STARTS = np.cumsum(_KIND_SIZES) - _KIND_SIZES
_TASTE_SCALES = (1.0, 1.0, 1.0, 1.2, 1.2, 0.8)  # How strongly users differ in each kind of trait.
_COLD_AFTER = 0.9  # Share of the days after which cold items appear.
_NO_DESCRIPTION = 0.10
# Users fall into circles, whose members' tastes correlate this much with the circle's: so a short
# history tells something of a taste, and a crowd can be learned from.
_CIRCLES, _TASTE_SHARED = 16, 0.85
_TASTE_KEPT = 0.7  # Correlation of a shopper's taste at the two ends of the log.
_EVENT_SPREAD = 1.0  # Sigma of the log-normal of events a user: a long tail, no giant.
_NEW_SESSION = 0.25  # Chance that an event opens a session: four events a session.
_STAY, _ONWARD = 0.60, 0.25  # In a session: same type again, or the one that follows it.
_CANDIDATES = 48  # Items a shopper compares: enough to come near the exact law, few to be fast.
_RECENT, _REPEAT = 10, 1e-6  # What was just seen is not looked at again if there is another.
_CHUNK = 8_192  # Users walked together, to bound memory.
_MATCHES = 6  # Items at most that fit a query.
_PRICE_LIMITED = 0.2  # Share of queries that name a highest price.
_ASKED = ((), (COLOUR,), (MATERIAL,), (USE,), (BRAND,), (COLOUR, MATERIAL), (COLOUR, USE))


@dataclass(frozen=True, slots=True)
class Tastes:
    """Each user's taste when the log starts and when it ends: (U, K) float32 each."""

    start: np.ndarray
    end: np.ndarray
    num_days: int

    def at(self, users: np.ndarray, times: np.ndarray) -> np.ndarray:
        """(B, K) taste of the B `users` (rows) at `times` (Unix seconds)."""
        elapsed = ((times - START) / (self.num_days * DAY)).astype(np.float32)[:, None]
        return self.start[users] * (1 - elapsed) + self.end[users] * elapsed


@dataclass(frozen=True, slots=True)
class World:
    """The tables a shop would have, and the truth it would not.

    Row n of `items` and of `item_traits` (N, K) float32, which holds a 1 for each of an item's
    traits, are one item; users are numbered in the order of their ids. `cold_from` is the Unix
    second from which cold items can appear.
    """

    interactions: pa.Table
    items: pa.Table
    queries: pa.Table
    item_traits: np.ndarray
    catalogue: Catalogue
    demand: Demand
    tastes: Tastes
    cold_from: int

    def affinity(self, user_row: int, time: int) -> np.ndarray:
        """(N,) how much the user likes each item at `time`; popularity and session aside."""
        return self.item_traits @ self.tastes.at(np.array([user_row]), np.array([time]))[0]

    def next_item_probabilities(
        self, user_row: int, time: int, recent: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """(N,) chance of each item to be the user's next event, at `time` (Unix seconds).

        `recent` are the items (rows) of the events before it, oldest first. Whether the event
        opens a new session is not known. To rank by this is about the best that any model can do;
        the chances are a little too sure, since a shopper compares a sample of the items.
        """
        taste = self.tastes.at(np.array([user_row]), np.array([time]))
        last = np.array(recent[-1:] if len(recent) else [0], dtype=np.int64)
        in_session = np.array([1 - _NEW_SESSION if len(recent) else 0.0])
        types = self.catalogue.types
        period = self.demand.period(np.array([time]))
        type_shares = self.demand.type_shares[period]
        by_type = _type_chances(type_shares, taste, types[last], in_session)[0]
        within = self.demand.shares[period[0]] * np.exp(
            _liking(self.catalogue, taste, np.arange(len(types))[None])[0]
        )
        within[np.asarray(recent[-_RECENT:], dtype=np.int64)] *= _REPEAT
        return by_type[types] * within / np.bincount(types, within)[types]


def generate(config: WorldConfig) -> World:
    """The world of `config`; equal configs give equal worlds."""
    rng = np.random.default_rng(config.seed)
    cold_from = START + int(np.ceil(_COLD_AFTER * config.num_days * DAY))
    catalogue = make_catalogue(config, rng)
    demand = make_demand(catalogue, START, cold_from, config.num_days, config.drift, config.seed)
    tastes = _make_tastes(config, rng)
    visits = _make_visits(config, rng)
    chosen, liking = _walk(catalogue, demand, tastes, visits, rng)
    item_traits = np.zeros((config.num_items, _KIND_SIZES.sum()), dtype=np.float32)
    np.put_along_axis(item_traits, catalogue.traits + _KIND_STARTS, 1.0, axis=1)
    return World(
        interactions=_interactions_table(catalogue, visits, chosen, liking, rng),
        items=_items_table(catalogue, rng),
        queries=_queries_table(catalogue, config.num_queries, rng),
        item_traits=item_traits,
        catalogue=catalogue,
        demand=demand,
        tastes=tastes,
        cold_from=cold_from,
    )


def write_world(world: World, directory: str | Path) -> None:
    """Writes `interactions.parquet`, `items.parquet` and `queries.parquet` into `directory`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("interactions", "items", "queries"):
        pq.write_table(getattr(world, name), directory / f"{name}.parquet", compression="zstd")


def _make_tastes(config: WorldConfig, rng: np.random.Generator) -> Tastes:
    scales = np.repeat(np.array(_TASTE_SCALES, dtype=np.float32), _KIND_SIZES)
    circles = rng.standard_normal((_CIRCLES, len(scales)), dtype=np.float32)
    start, fresh = (_draw_taste(config.num_users, circles, rng) for _ in range(2))
    end = _mix(start, fresh, _TASTE_KEPT)
    return Tastes(start * scales, end * scales, config.num_days)


def _draw_taste(num_users: int, circles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # (U, K): mostly that of the circle a user belongs to.
    own = rng.standard_normal((num_users, circles.shape[1]), dtype=np.float32)
    return _mix(circles[rng.integers(len(circles), size=num_users)], own, _TASTE_SHARED)


def _mix(one: np.ndarray, other: np.ndarray, correlation: float) -> np.ndarray:
    # Keeps the variance of its parts.
    return np.float32(correlation) * one + np.float32((1 - correlation**2) ** 0.5) * other


# Behaviour


@dataclass(frozen=True, slots=True)
class _Visits:
    # When each of the E events happens, users one after the other, each in time order. `counts`
    # and `offsets` (U,): a user's events. `users`, `order`, `times`, `opens` (E,).
    counts: np.ndarray
    offsets: np.ndarray
    users: np.ndarray
    order: np.ndarray
    times: np.ndarray
    opens: np.ndarray


def _make_visits(config: WorldConfig, rng: np.random.Generator) -> _Visits:
    beyond = np.log(config.mean_events - 3) - _EVENT_SPREAD**2 / 2
    drawn = rng.lognormal(beyond, _EVENT_SPREAD, size=config.num_users)
    counts = 3 + np.rint(drawn).astype(np.int64)
    offsets = np.cumsum(counts) - counts
    users = np.repeat(np.arange(config.num_users), counts)
    order = np.arange(len(users)) - offsets[users]
    opens = (order == 0) | (rng.random(len(users)) < _NEW_SESSION)
    times = _draw_times(users, opens, config.num_days * DAY, rng)
    return _Visits(counts, offsets, users, order, times, opens)


def _draw_times(
    users: np.ndarray, opens: np.ndarray, span: int, rng: np.random.Generator
) -> np.ndarray:
    # Half of the users are there from the first day, the others arrive over the first 80% of the
    # days; all stay. `user * span` keeps users apart, so that one sort serves them all.
    owner = users[opens]
    arrival = np.maximum(0, rng.uniform(-0.8 * span, 0.8 * span, size=users[-1] + 1))[owner]
    begin = (arrival + rng.random(len(owner)) * (span - arrival)).astype(np.int64)
    begin = np.sort(owner * span + np.minimum(begin, span - 1)) % span
    gaps = np.where(opens, 0, 5 + rng.exponential(60, size=len(users)).astype(np.int64))
    total = np.cumsum(gaps)
    session = np.cumsum(opens) - 1
    times = begin[session] + total - total[opens][session]
    # A session that runs into the next one, or past the end, must not turn time back.
    times = np.maximum.accumulate(users * span + np.minimum(times, span - 1)) % span
    return START + times


def _walk(
    catalogue: Catalogue,
    demand: Demand,
    tastes: Tastes,
    visits: _Visits,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    # (E,) item of each event, and how well its user likes it. All users of a chunk take their
    # step together; the longest histories come first, so that chunks finish together.
    chosen = np.zeros(len(visits.users), dtype=np.int64)
    liking = np.zeros(len(visits.users), dtype=np.float32)
    longest_first = np.argsort(-visits.counts, kind="stable")
    for begin in range(0, len(longest_first), _CHUNK):
        chunk = longest_first[begin : begin + _CHUNK]
        for position in range(visits.counts[chunk[0]]):
            users = chunk[visits.counts[chunk] > position]
            at = visits.offsets[users] + position
            taste = tastes.at(users, visits.times[at])
            recent = chosen[at[:, None] - np.arange(1, min(position, _RECENT) + 1)]
            # A user's first event opens a session, so what is before it does not matter.
            last = catalogue.types[chosen[at - 1]]
            period = demand.period(visits.times[at])
            chances = _type_chances(demand.type_shares[period], taste, last, ~visits.opens[at])
            types = _race(chances, rng)
            items = demand.draw(types, period, _CANDIDATES, rng)
            chosen[at], liking[at] = _choose(catalogue, taste, items, recent, rng)
    return chosen, liking


def _type_chances(
    type_shares: np.ndarray, taste: np.ndarray, last: np.ndarray, in_session: np.ndarray
) -> np.ndarray:
    # (B, T) chance of each type, of popularity `type_shares` (B, T), for users of `taste` (B, K)
    # who were last at type `last` (B,) and are still in that session with chance `in_session` (B,);
    # else they start anew, by taste.
    types = np.arange(type_shares.shape[1])
    of_category = taste[:, types % len(CATEGORIES)]
    rates = type_shares * np.exp(of_category + taste[:, _KIND_STARTS[TYPE] + types])
    by_taste = rates / rates.sum(axis=1, keepdims=True)
    chances = by_taste * (1 - (_STAY + _ONWARD) * in_session)[:, None]
    rows = np.arange(len(last))
    chances[rows, last] += _STAY * in_session
    # The type shoppers turn to next is the next of the category; after its last, its first.
    onward = last + len(CATEGORIES)
    onward = np.where(onward < len(types), onward, last % len(CATEGORIES))
    chances[rows, onward] += _ONWARD * in_session
    return chances


def _race(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # The first of exponential waiting times is i with probability rates[i] / sum(rates).
    waits = rng.standard_exponential(rates.shape, dtype=np.float32)
    return (waits / rates).argmin(axis=1)


def _choose(
    catalogue: Catalogue,
    taste: np.ndarray,
    candidates: np.ndarray,
    recent: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    # (B,) item of `candidates` (B, C) and (B,) its liking. Candidates are drawn by popularity, the
    # choice is by taste, so a chance is in proportion to popularity times exp(liking).
    liking = _liking(catalogue, taste, candidates)
    seen = (candidates[:, :, None] == recent[:, None, :]).any(axis=2)
    best = _race(np.exp(liking) * np.where(seen, np.float32(_REPEAT), np.float32(1)), rng)
    rows = np.arange(len(best))
    return candidates[rows, best], liking[rows, best]


def _liking(catalogue: Catalogue, taste: np.ndarray, items: np.ndarray) -> np.ndarray:
    # (B, C): taste (B, K) for material, colour, use and brand of `items` (B or 1, C).
    columns = (catalogue.traits + _KIND_STARTS)[items, MATERIAL:]
    flat = np.take_along_axis(taste, columns.reshape(len(items), -1), axis=1)
    return flat.reshape(columns.shape).sum(axis=2)


# Tables


def _ids(prefix: str, count: int) -> pa.Array:
    # Padded with zeros, so that ids sort as numbers do.
    width = len(str(max(count - 1, 0)))
    return pa.array([f"{prefix}{number:0{width}d}" for number in range(count)], pa.string())


def _interactions_table(
    catalogue: Catalogue,
    visits: _Visits,
    chosen: np.ndarray,
    liking: np.ndarray,
    rng: np.random.Generator,
) -> pa.Table:
    # What is liked more goes further down the funnel.
    names = list(EVENT_SHARES)
    strength = liking + rng.gumbel(scale=2.0, size=len(liking))
    bounds = np.quantile(strength, np.cumsum(list(EVENT_SHARES.values()))[:-1])
    event = np.searchsorted(bounds, strength, side="right")
    bought = event == names.index("purchase")
    return pa.table(
        {
            USER_ID: _ids("u", len(visits.counts)).take(pa.array(visits.users)),
            ITEM_ID: _ids("i", len(catalogue.prices)).take(pa.array(chosen)),
            TIMESTAMP: pa.array(visits.times, pa.int64()),
            EVENT: pa.array(names, pa.string()).take(pa.array(event)),
            VALUE: pa.array(catalogue.prices[chosen], pa.float32(), mask=~bought),
            ORDER: pa.array(visits.order.astype(np.int32), pa.int32()),
        }
    )


def _items_table(catalogue: Catalogue, rng: np.random.Generator) -> pa.Table:
    described = rng.random(len(catalogue.prices)) >= _NO_DESCRIPTION
    facts = zip(
        catalogue.traits.tolist(), catalogue.languages.tolist(), catalogue.brand_known, strict=True
    )
    texts = [item_text(traits, language, known, rng) for traits, language, known in facts]
    titles, descriptions, categories, brands = zip(*texts, strict=True)
    return pa.table(
        {
            ITEM_ID: _ids("i", len(texts)),
            "title": pa.array(titles, pa.string()),
            "description": pa.array(
                np.array(descriptions, dtype=object), pa.string(), mask=~described
            ),
            "category": pa.array(categories, pa.string()),
            "brand": pa.array(brands, pa.string()),
            "price": pa.array(catalogue.prices, pa.float32()),
        }
    )


def _queries_table(catalogue: Catalogue, count: int, rng: np.random.Generator) -> pa.Table:
    # One row a (query, item); each query is worded from the traits of some item.
    numbers, texts, matches, relevance = [], [], [], []
    models = rng.integers(len(catalogue.prices), size=count)
    for number, model in enumerate(models.tolist()):
        asked = _ASKED[rng.integers(len(_ASKED))]
        dear = int(np.ceil(catalogue.prices[model] / 10)) * 10
        limit = dear if rng.random() < _PRICE_LIMITED else None
        language = int(catalogue.languages[model])
        text = query_text(catalogue.traits[model].tolist(), asked, language, limit, rng)
        fitting, fit = _fitting(catalogue, model, asked, limit)
        numbers += [number] * len(fitting)
        texts += [text] * len(fitting)
        matches += fitting.tolist()
        relevance += fit.tolist()
    items = _ids("i", len(catalogue.prices))
    return pa.table(
        {
            "query_id": _ids("q", count).take(pa.array(numbers, pa.int64())),
            "query": pa.array(texts, pa.string()),
            ITEM_ID: items.take(pa.array(matches, pa.int64())),
            "relevance": pa.array(relevance, pa.float64()),
        }
    )


def _fitting(
    catalogue: Catalogue, model: int, asked: tuple[int, ...], limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    # (M,) items of the type and the language of item `model`, and (M,) relevance: the share of
    # what was asked for (the type included) that the item has. Best first, then most popular.
    traits, of_type = catalogue.traits, catalogue.types[model]
    items = catalogue.by_type[catalogue.starts[of_type] : catalogue.starts[of_type + 1]]
    items = items[catalogue.languages[items] == catalogue.languages[model]]
    met = [np.full(len(items), True)]
    for kind in asked:
        same = traits[items, kind] == traits[model, kind]
        met.append(same & catalogue.brand_known[items] if kind == BRAND else same)
    if limit is not None:
        met.append(catalogue.prices[items] <= limit)
    fit = np.mean(met, axis=0)
    best = np.argsort(-fit, kind="stable")[:_MATCHES]
    best = best[fit[best] >= 0.5]
    return items[best], fit[best]

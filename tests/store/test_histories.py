"""One contract for every store of histories, held against a model in plain Python."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.config import StoreConfig
from recsys.schema import SECONDS_A_DAY
from recsys.store.histories import Appended, StoredEvent
from recsys.store.open import open_store
from recsys.store.pseudonymous import PseudonymousStore
from tests.store.conftest import NOW, Clock, Opening

MAX_EVENTS, TTL_DAYS = 3, 2


def event(event_id: str, age: int = 0, item_id: str = "a") -> StoredEvent:
    """An event of `age` seconds before now."""
    return StoredEvent(event_id, item_id, NOW - age)


def ids(events: list[StoredEvent]) -> list[str]:
    return [e.event_id for e in events]


def test_events_come_back_whole_and_in_order(opening: Opening):
    store = opening()
    full = StoredEvent("e-1:\x00{[\"'", "锤子 \u2028\x01", NOW - 5, "购买", -0.1)
    bare = StoredEvent("e2", "b", NOW - 9)
    assert store.append("用户", [full]) == Appended(["e-1:\x00{[\"'"], [], [])
    store.append("用户", [bare])
    assert store.last("用户", 10) == [bare, full]
    assert store.last("用户", 1) == [full]
    assert store.last("用户", 0) == []
    assert store.last("nobody", 10) == []


def test_events_of_one_second_stay_in_the_order_in_which_they_came(opening: Opening):
    store = opening()
    names = [str(n) for n in range(25, 0, -1)]
    for one in names[:5]:
        store.append("u", [event(one)])
    store.append("u", [event(one) for one in names[5:]])
    assert ids(store.last("u", 100)) == names


def test_a_repeated_id_changes_nothing_and_is_told(opening: Opening):
    store = opening()
    first = event("e", age=7)
    assert store.append("u", [first, event("e", item_id="b")]) == Appended(["e"], ["e"], [])
    version = store.version("u")
    assert store.append("u", [event("e", item_id="c")]) == Appended([], ["e"], [])
    assert (store.last("u", 9), store.version("u")) == ([first], version)
    assert store.append("v", [event("e")]).added == ["e"]


def test_the_newest_events_are_kept_and_the_others_do_not_come_back(opening: Opening):
    store = opening(max_events=2)
    old, same = event("old", age=9), event("same", age=9)
    assert store.append("u", [event("new"), old]).added == ["new", "old"]
    told = store.append("u", [event("mid", age=5), event("older", age=10)])
    assert told == Appended(["mid"], [], ["older"])
    assert ids(store.last("u", 9)) == ["mid", "new"]
    # `old` was pushed out; what is as old as that is refused also where there would be room.
    assert store.append("u", [old, same]).outdated == ["old", "same"]
    assert ids(store.last("u", 9)) == ["mid", "new"]


def test_events_of_one_second_beyond_the_limit_are_the_newest_that_came(opening: Opening):
    store = opening(max_events=2)
    call = [event(one) for one in "abc"]
    assert store.append("u", call) == Appended(["b", "c"], [], ["a"])
    assert store.append("u", call) == Appended([], ["b", "c"], ["a"])
    assert ids(store.last("u", 9)) == ["b", "c"]


def test_old_events_are_never_told(opening: Opening, clock: Clock):
    store = opening(ttl_days=1)
    store.append("u", [event("a", age=SECONDS_A_DAY), event("b", age=10)])
    assert store.append("u", [event("c", age=SECONDS_A_DAY + 1)]).outdated == ["c"]
    assert ids(store.last("u", 9)) == ["a", "b"]
    clock.now += 1
    assert ids(store.last("u", 9)) == ["b"]
    # The id of what is gone may be used again; that of what is left may not.
    told = store.append("u", [event("a"), event("b")])
    assert (told.added, told.duplicates) == (["a"], ["b"])
    clock.now += 2 * SECONDS_A_DAY
    assert (store.last("u", 9), store.version("u"), store.delete("u")) == ([], "", 0)


def test_a_deleted_user_leaves_nothing(opening: Opening):
    store = opening(max_events=2)
    store.append("u", [event(one) for one in "abc"])
    store.append("v", [event("a")])
    assert store.delete("u") == 2
    assert (store.last("u", 9), store.version("u"), store.delete("u")) == ([], "", 0)
    assert ids(store.last("v", 9)) == ["a"]
    # Neither ids nor what was pushed out are remembered.
    assert store.append("u", [event("a"), event("b", age=5)]).added == ["a", "b"]


def test_no_state_has_the_version_of_another(opening: Opening):
    store = opening(max_events=2)
    versions = [store.version("u")]
    for n, one in enumerate("abcd"):
        store.append("u", [event(one, age=9 - n)])
        versions.append(store.version("u"))
    store.delete("u")
    store.append("u", [event("a")])
    versions.append(store.version("u"))
    assert len(set(versions)) == len(versions) == 6
    assert versions[0] == ""
    store.append("u", [event("a"), event("b", age=400 * SECONDS_A_DAY)])
    assert store.version("u") == versions[-1]


def test_writers_at_once_lose_and_double_nothing(opening: Opening):
    store = opening(timeout_s=5.0)
    calls = [[event(f"{n % 6}-{k}", age=k) for k in range(5)] for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda call: store.append("u", call), calls))
    wanted = {f"{n}-{k}" for n in range(6) for k in range(5)}
    added = [event_id for one in told for event_id in one.added]
    assert sorted(added) == sorted(wanted) == sorted(ids(store.last("u", 99)))
    assert sum(len(one.duplicates) for one in told) == 30


def test_a_second_store_sees_the_first_ones_events(opening: Opening, url: str):
    if url != "sqlite://":
        opening().append("u", [event("e")])
        assert ids(opening().last("u", 9)) == ["e"]
    assert opening().healthy()


def test_a_pseudonymous_store_passes_no_id_on(opening: Opening):
    inner = opening()
    store = PseudonymousStore(inner, {"anna": "u", "bob": "v"}.__getitem__)
    assert store.append("anna", [event("e")]).added == ["e"]
    assert (store.last("anna", 1), store.version("anna")) == (
        inner.last("u", 1),
        inner.version("u"),
    )
    assert (inner.last("anna", 1), store.last("bob", 1)) == ([], [])
    assert (store.delete("anna"), inner.last("u", 1), store.healthy()) == (1, [], True)


class Model:
    """What a store does, said once more without a database."""

    def __init__(self) -> None:
        self.events: dict[str, list[tuple[int, int, StoredEvent]]] = {}
        self.pushed_out: dict[str, int] = {}
        self.order = itertools.count()

    def alive(self, user: str, now: float) -> list[tuple[int, int, StoredEvent]]:
        oldest = now - TTL_DAYS * SECONDS_A_DAY
        self.events[user] = [e for e in self.events.get(user, []) if e[0] >= oldest]
        return self.events[user]

    def append(self, user: str, events: list[StoredEvent], now: float) -> Appended:
        alive, told = self.alive(user, now), []
        refused = max(now - TTL_DAYS * SECONDS_A_DAY - 1, self.pushed_out.get(user, -1))
        for one in events:
            if one.event_id in {e.event_id for _, _, e in alive}:
                told.append("duplicates")
            elif one.timestamp <= refused:
                told.append("outdated")
            else:
                alive.append((one.timestamp, next(self.order), one))
                told.append("added")
        alive.sort()
        gone, self.events[user] = alive[:-MAX_EVENTS], alive[-MAX_EVENTS:]
        if gone:
            self.pushed_out[user] = gone[-1][0]
        for place, one in enumerate(events):
            if told[place] == "added" and one.event_id in {e.event_id for _, _, e in gone}:
                told[place] = "outdated"
        kinds = ("added", "duplicates", "outdated")
        pairs = list(zip(events, told, strict=True))
        return Appended(*([e.event_id for e, what in pairs if what == kind] for kind in kinds))

    def delete(self, user: str, now: float) -> int:
        self.pushed_out.pop(user, None)
        deleted = len(self.alive(user, now))
        self.events[user] = []
        return deleted


DAY = SECONDS_A_DAY
EVENT = st.builds(
    StoredEvent,
    st.sampled_from("abcdefgh"),
    st.sampled_from(["x", "y"]),
    st.sampled_from([NOW + offset * DAY // 2 for offset in range(-6, 3)]),
    st.sampled_from([None, "view"]),
    st.sampled_from([None, 0.1]),
)
STEP = st.one_of(
    st.tuples(st.just("append"), st.sampled_from("uv"), st.lists(EVENT, max_size=6)),
    st.tuples(st.just("again"), st.sampled_from("uv"), st.none()),
    st.tuples(st.just("delete"), st.sampled_from("uv"), st.none()),
    st.tuples(st.just("wait"), st.just(""), st.none()),
)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEP, max_size=12))
def test_any_calls_leave_what_the_model_has(kind: str, request: pytest.FixtureRequest, steps):
    clock, model, last = Clock(), Model(), []
    url = "sqlite://" if kind == "sqlite" else request.getfixturevalue("redis_for_all").url
    config = StoreConfig(url=url, ttl_days=TTL_DAYS, max_events=MAX_EVENTS)
    store = open_store(config, now=clock)
    for user in "uv":
        store.delete(user)
    for what, user, events in steps:
        before = {u: (store.version(u), store.last(u, 99)) for u in "uv"}
        if what == "wait":
            clock.now += DAY / 2
        elif what == "delete":
            assert store.delete(user) == model.delete(user, clock.now)
        else:
            last = events if what == "append" else last
            told = store.append(user, last)
            assert told == model.append(user, last, clock.now)
            assert (store.version(user) == before[user][0]) == (not told.added)
        for other in "uv":
            assert store.last(other, 99) == [e for _, _, e in model.alive(other, clock.now)]
            assert store.last(other, 2) == store.last(other, 99)[-2:]
            assert (store.version(other) == "") == (store.last(other, 1) == [])
    store.close()

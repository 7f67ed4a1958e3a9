"""Whole users from an events file: by id, with all they did until then, and who is asked for."""

from __future__ import annotations

import pyarrow as pa
import pytest

from recsys.artifact import Artifact, ArtifactWriter
from recsys.bulk.histories import (
    Reading,
    check_index,
    event_numbers,
    histories_of_users,
    names_of,
    only,
)
from recsys.data.privacy import key_fingerprint, pseudonymise
from recsys.data.split import SplitPlan
from tests.data.made_events import event, events_of

BY_TIME, LEAVE_LAST_OUT = SplitPlan("time", 20, 30), SplitPlan("leave_last_out")
KEY = bytes(range(32))
ROWS = [
    *(event("w", item, time) for item, time in [(1, 5), (2, 15), (3, 25), (4, 35)]),
    event("a", 7, 31),
    *(event("用户", item, time) for item, time in [(5, 1), (6, 40)]),
]


def read(until="all", plan=BY_TIME, gap=None, rows=ROWS) -> dict[str, list[int]]:
    reading = Reading(gap, keep_values=False, plan=plan, until=until)
    ids, histories = histories_of_users(events_of(rows), reading)
    assert ids.to_pylist() == sorted(ids.to_pylist())
    return {i: h.item_indexes.tolist() for i, h in zip(ids.to_pylist(), histories, strict=True)}


def dataset(place, **facts) -> Artifact:
    config = {"prepare": {"events": ["view", "purchase"]}}
    return ArtifactWriter(place, "dataset").publish(config, {}, facts)


def test_a_history_holds_all_events_of_a_user():
    assert read() == {"a": [7], "w": [1, 2, 3, 4], "用户": [5, 6]}


def test_until_leaves_out_what_is_held_out():
    assert read("valid") == {"a": [], "w": [1, 2, 3], "用户": [5]}
    assert read("train") == {"a": [], "w": [1, 2], "用户": [5]}
    assert read("train", LEAVE_LAST_OUT) == {"a": [7], "w": [1, 2], "用户": [5, 6]}


def test_of_sessions_the_newest_with_an_event_counts():
    assert read(gap=12) == {"a": [7], "w": [1, 2, 3, 4], "用户": [6]}
    assert read(gap=8) == {"a": [7], "w": [4], "用户": [6]}
    assert read("valid", gap=8) == {"a": [], "w": [3], "用户": [5]}


def test_values_are_kept_where_the_dataset_keeps_them():
    rows = [event("u", 1, 5, value=2.5)]
    reading = Reading(None, keep_values=True, plan=BY_TIME, until="all")
    _, [history] = histories_of_users(events_of(rows), reading)
    assert history.values is not None
    assert history.values.tolist() == [2.5]


def test_only_the_users_asked_for_are_kept():
    found = only(events_of(ROWS), pa.array(["用户", "nobody"], pa.large_string()))
    assert set(found["user_id"].to_pylist()) == {"用户"}
    assert len(only(events_of(ROWS), None)) == len(ROWS)


def test_users_are_asked_for_by_the_names_that_the_dataset_has(tmp_path):
    plain = dataset(tmp_path / "plain", user_key=None)
    assert names_of(["w", "", "a", "w"], plain, KEY).to_pylist() == ["a", "w"]
    keyed = dataset(tmp_path / "keyed", user_key=key_fingerprint(KEY))
    assert names_of(["w"], keyed, KEY) == pseudonymise(pa.array(["w"]), KEY)
    with pytest.raises(ValueError, match="none was given"):
        names_of(["w"], keyed, None)
    with pytest.raises(ValueError, match="list of users is empty"):
        names_of(["", ""], plain, None)


def test_an_event_that_the_dataset_does_not_have_is_named(tmp_path):
    made = dataset(tmp_path / "dataset")
    assert event_numbers(["purchase"], made, "forecast.events") == [1]
    assert event_numbers([], made, "forecast.events") is None
    with pytest.raises(ValueError, match=r"forecast.events names \['rent'\].*view, purchase"):
        event_numbers(["view", "rent"], made, "forecast.events")


def test_an_index_of_another_dataset_is_refused(tmp_path):
    made = dataset(tmp_path / "dataset")
    writer = ArtifactWriter(tmp_path / "index", "index")
    check_index(made, writer.publish({}, {"dataset": made.digest}))
    other = ArtifactWriter(tmp_path / "other", "index").publish({}, {"dataset": "x"})
    with pytest.raises(ValueError, match="was not made from"):
        check_index(made, other)

"""Popular items by segments of users, counted by hand and by a plain loop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.artifact import Artifact, ArtifactWriter
from recsys.index.segment_popularity import MAX_ITEMS, Segments, count_segments

Window = tuple[str, list[int]]


def windows(rows: list[Window], times: list[list[int]] | None = None) -> pa.Table:
    items = pa.array([items for _, items in rows], pa.large_list(pa.int32()))
    zeros = [[0] * len(items) for _, items in rows]
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in rows], pa.large_string()),
            "item_indexes": items,
            "timestamps": pa.array(times or zeros, pa.large_list(pa.int64())),
            "events": pa.array(zeros, pa.large_list(pa.int8())),
        }
    )


def dataset(folder: Path, *files: pa.Table) -> Artifact:
    writer = ArtifactWriter(folder, "dataset")
    for number, table in enumerate(files):
        writer.add_table(f"train/{number}.parquet", table)
    return writer.publish({}, {})


def users(**columns: list) -> pa.Table:
    number = len(next(iter(columns.values())))
    ids = pa.array([f"u{n}" for n in range(number)], pa.large_string())
    texts = {name: pa.array(values, pa.large_string()) for name, values in columns.items()}
    return pa.table({"user_id": ids} | texts)


def count(
    source: Artifact, table: pa.Table, num_items: int = 6, min_users: int = 1, removed: int = -1
) -> dict[tuple[str, str], tuple[int, list[int], list[int]]]:
    gone = np.arange(num_items) == removed
    rows = count_segments(source, table, gone, min_users).to_pylist()
    return {(r["column"], r["value"]): (r["events"], r["items"], r["counts"]) for r in rows}


BY_HAND = [
    windows([("u0", [4, 4, 1]), ("u0", [1, 2]), ("u1", [2, 4])]),
    windows([("stranger", [5, 5, 5]), ("u2", [3, 2]), ("u3", [0, 1])]),
]
COUNTRIES = ["DE", "DE", "中国", None]


def test_by_hand_over_files_columns_and_windows_that_overlap(tmp_path):
    table = users(country=COUNTRIES, device=["phone", "", "phone", "phone"])
    assert count(dataset(tmp_path / "d", *BY_HAND), table) == {
        ("country", "DE"): (6, [4, 2, 1], [3, 2, 1]),
        ("country", "中国"): (2, [2, 3], [1, 1]),
        ("device", "phone"): (8, [1, 2, 4, 0, 3], [2, 2, 2, 1, 1]),
    }


def test_a_segment_of_few_users_is_not_told_and_users_without_windows_do_not_count(tmp_path):
    table = users(country=[*COUNTRIES, "中国", "中国"])
    found = count(dataset(tmp_path / "d", *BY_HAND), table, min_users=2)
    assert list(found) == [("country", "DE")]


def test_removed_items_are_left_out_but_their_events_count(tmp_path):
    found = count(dataset(tmp_path / "d", *BY_HAND), users(country=COUNTRIES), removed=4)
    assert found["country", "DE"] == (6, [2, 1], [2, 1])


def test_windows_of_two_sessions_do_not_overlap(tmp_path):
    rows = windows([("u0", [3, 1]), ("u0", [1, 2])], [[10, 20], [900, 910]])
    found = count(dataset(tmp_path / "d", rows), users(country=["DE"]))
    assert found["country", "DE"] == (4, [1, 2, 3], [2, 1, 1])


def test_only_the_first_items_are_kept(tmp_path):
    size = MAX_ITEMS + 9
    rows = windows([("u0", [*range(size), size - 1])])
    found = count(dataset(tmp_path / "d", rows), users(country=["DE"]), size)
    events, items, _ = found["country", "DE"]
    assert events == size + 1
    assert items == [size - 1, *range(MAX_ITEMS - 1)]


def test_a_dataset_without_training_rows_has_no_segments(tmp_path):
    table = count_segments(dataset(tmp_path / "d"), users(country=["DE"]), np.zeros(3, bool), 1)
    assert len(table) == 0
    assert Segments(table).find({"country": "DE"}) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments")


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.integers(0, 5), min_size=2, max_size=6)),
        max_size=12,
    ),
    countries=st.lists(st.sampled_from(["DE", "FR", "", None]), min_size=5, max_size=5),
    data=st.data(),
)
def test_it_is_what_a_plain_loop_counts(folder, rows, countries, data):
    sequences = {f"u{user}": items for user, items in rows}
    cut = data.draw(st.integers(0, len(sequences)))
    pieces = [
        # Windows of three events, the last of one the first of the next.
        [(u, s[at : at + 3]) for u, s in part for at in range(0, len(s) - 1, 2)]
        for part in (list(sequences.items())[:cut], list(sequences.items())[cut:])
    ]
    source = dataset(folder / str(data.draw(st.uuids())), *(windows(p) for p in pieces if p))
    events: dict[str, Counter[int]] = {}
    for user, items in sequences.items():
        if country := countries[int(user[1:])]:
            events.setdefault(country, Counter()).update(items)
    assert count(source, users(country=countries)) == {
        ("country", name): (
            counted.total(),
            [i for i, _ in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))],
            sorted(counted.values(), reverse=True),
        )
        for name, counted in events.items()
    }

"""Who and what a segment holds: by history, by kind of item, by columns of users and of items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recsys.eval.segments import (
    HISTORY_BOUNDS,
    MAX_GROUPS,
    HeldOut,
    Labels,
    item_kinds,
    segments,
    split_group_name,
)
from recsys.schema import History


def kinds_of(counts: list[int]) -> dict[str, list[int]]:
    masks = item_kinds(np.array(counts))
    assert list(masks) == ["head", "tail", "cold"]
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


class TestItemKinds:
    def test_head_takes_half_of_the_events(self):
        # 20 events: item 3 has 6, item 0 has 5, together 11 >= 10; no smaller head does.
        assert kinds_of([5, 4, 0, 6, 3, 2, 0]) == {
            "head": [0, 3],
            "tail": [1, 4, 5],
            "cold": [2, 6],
        }

    def test_exactly_half_is_enough(self):
        assert kinds_of([5, 3, 2]) == {"head": [0], "tail": [1, 2], "cold": []}

    def test_just_under_half_is_not(self):
        assert kinds_of([4, 3, 2]) == {"head": [0, 1], "tail": [2], "cold": []}

    def test_equal_items_are_taken_in_index_order(self):
        assert kinds_of([1, 1, 1, 1, 0]) == {"head": [0, 1], "tail": [2, 3], "cold": [4]}

    def test_one_item_is_head(self):
        assert kinds_of([7]) == {"head": [0], "tail": [], "cold": []}

    def test_a_catalogue_without_events_is_cold(self):
        assert kinds_of([0, 0]) == {"head": [], "tail": [], "cold": [0, 1]}

    def test_every_item_is_of_one_kind(self):
        random = np.random.default_rng(0)
        masks = item_kinds(random.integers(0, 5, 200))
        assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()


COUNTS = np.array([5, 4, 0, 6, 3, 2, 0])  # head 0 3, tail 1 4 5, cold 2 6
LENGTHS = np.array([0, 1, 4, 5, 19, 20, 300])
TARGETS = [
    np.array(row) for row in ([0, 1, 2], [3], [4, 5], [2], [0, 3], [6, 1], [5])
]  # each row's relevant items


def found_in(held_out: HeldOut) -> dict[str, tuple[list, list]]:
    return {
        name: (rows.tolist(), [row.tolist() for row in part])
        for name, rows, part in segments(held_out)
    }


class TestSegments:
    def found(self, lengths=LENGTHS, targets=TARGETS) -> dict[str, tuple[list, list]]:
        histories = [History.of_items([0] * length) for length in lengths]
        return found_in(HeldOut(histories, targets, COUNTS))

    def test_all_is_everything(self):
        assert self.found()["all"] == ([*range(7)], [row.tolist() for row in TARGETS])

    def test_history_lengths_with_both_ends(self):
        found = self.found()
        assert found["history:0"] == ([0], [[0, 1, 2]])
        assert found["history:1-4"] == ([1, 2], [[3], [4, 5]])
        assert found["history:5-19"] == ([3, 4], [[2], [0, 3]])
        assert found["history:20+"] == ([5, 6], [[6, 1], [5]])

    def test_item_kinds_look_at_part_of_a_rows_targets(self):
        found = self.found()
        assert found["items:head"] == ([0, 1, 4], [[0], [3], [0, 3]])
        assert found["items:tail"] == ([0, 2, 5, 6], [[1], [4, 5], [1], [5]])
        assert found["items:cold"] == ([0, 3, 5], [[2], [2], [6]])

    def test_order_of_the_names(self):
        assert list(self.found()) == [
            *("all", "history:0", "history:1-4", "history:5-19", "history:20+"),
            *("items:head", "items:tail", "items:cold"),
        ]

    def test_empty_segments_are_left_out(self):
        found = self.found(np.array([3, 2]), [np.array([3]), np.array([0])])
        assert list(found) == ["all", "history:1-4", "items:head"]

    def test_every_length_is_in_exactly_one_bound(self):
        for length in range(50):
            inside = [
                low <= length and (high is None or length <= high) for low, high in HISTORY_BOUNDS
            ]
            assert sum(inside) == 1


class TestColumns:
    """Groups of users and of items: which there are, and who is in them."""

    def found(self, users=None, items=None, min_size=1, targets=TARGETS) -> dict:
        histories = [History.of_items([0]) for _ in targets]
        users = {name: Labels.of(pa.array(values)) for name, values in (users or {}).items()}
        items = {name: Labels.of(pa.array(values)) for name, values in (items or {}).items()}
        found = found_in(HeldOut(histories, targets, COUNTS, users, items, min_size))
        return {name: rows for name, rows in found.items() if split_group_name(name)}

    def test_users_are_grouped_by_their_column(self):
        found = self.found({"country": ["日本", "US", "日本", None, "", "US", "日本"]})
        assert {name: rows for name, (rows, _) in found.items()} == {
            "user:country=日本": [0, 2, 6],
            "user:country=US": [1, 5],
            "user:country=unknown": [3, 4],
        }

    def test_small_groups_join_other(self):
        found = self.found({"age": [30, 30, 40, 50, 30, 60, 30]}, min_size=3)
        assert {name: rows for name, (rows, _) in found.items()} == {
            "user:age=30": [0, 1, 4, 6],
            "user:age=other": [2, 3, 5],
        }

    def test_an_other_that_is_still_small_is_left_out(self):
        found = self.found({"age": [30, 30, 40, 30, 30, 60, 30]}, min_size=3)
        assert list(found) == ["user:age=30"]

    def test_only_the_most_frequent_values_have_a_name(self):
        values = [f"v{n:02}" for n in range(15) for _ in range(n + 1)]
        targets = [np.array([0])] * len(values)
        found = self.found({"c": values}, targets=targets)
        named = [f"user:c=v{n:02}" for n in range(14, 14 - MAX_GROUPS, -1)]
        assert list(found) == [*named, "user:c=other"]
        assert sum(len(rows) for rows, _ in found.values()) == len(values)

    def test_a_value_called_other_joins_other(self):
        found = self.found({"c": ["other", "a", "other", "b", "a", "a", "c"]}, min_size=2)
        assert {name: rows for name, (rows, _) in found.items()} == {
            "user:c=a": [1, 4, 5],
            "user:c=other": [0, 2, 3, 6],
        }

    def test_items_take_part_of_a_rows_targets(self):
        # Targets: 0 1 2 | 3 | 4 5 | 2 | 0 3 | 6 1 | 5
        found = self.found(items={"category": ["鞋子", "鞋子", "hat", "hat", None, "cup", "saw"]})
        assert found["item:category=鞋子"] == ([0, 4, 5], [[0, 1], [0], [1]])
        assert found["item:category=hat"] == ([0, 1, 3, 4], [[2], [3], [2], [3]])
        assert found["item:category=unknown"] == ([2], [[4]])
        assert found["item:category=saw"] == ([5], [[6]])

    def test_no_group_of_items_is_below_the_least_size(self):
        columns = {"category": ["a", "a", "b", "b", "c", "d", "e"]}
        for min_size in (1, 2, 3, 4):
            found = self.found(items=columns, min_size=min_size)
            assert all(len(rows) >= min_size for rows, _ in found.values())

    def test_names_are_read_back_as_they_were_made(self):
        assert split_group_name("user:a=b=c:d") == ("user", "a", "b=c:d")
        assert split_group_name("history:1-4") is None
        assert split_group_name("items:cold") is None

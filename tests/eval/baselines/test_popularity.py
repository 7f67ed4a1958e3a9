"""Counts of the last seven days."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.eval.baselines.popularity import Popularity, recent_counts
from recsys.schema import SECONDS_A_DAY, UNKNOWN_TIME, History
from tests.eval.baselines.made import histories

WEEK = 7 * SECONDS_A_DAY
NOW = 1_700_000_000


def counts_of(events: list[tuple[int, int]]) -> list[int]:
    """Whole events in the window, by item, of (item, time) pairs."""
    items, times = (np.array(column) for column in zip(*events, strict=True))
    found = recent_counts(items, times, 3)
    assert found is not None
    return found.floor().int().tolist()


def test_the_window_ends_with_the_newest_event_and_is_open_at_its_start():
    assert counts_of([(0, NOW), (1, NOW - WEEK + 1), (2, NOW - WEEK)]) == [1, 1, 0]


def test_it_is_the_newest_event_of_all_items_that_counts():
    assert counts_of([(0, NOW - WEEK - 5), (0, NOW - WEEK), (1, NOW)]) == [0, 1, 0]


def test_events_of_unknown_time_are_in_no_window():
    assert counts_of([(0, UNKNOWN_TIME), (1, NOW), (1, UNKNOWN_TIME)]) == [0, 1, 0]


def test_without_any_time_there_is_no_such_baseline():
    assert recent_counts(np.array([0, 1]), np.array([UNKNOWN_TIME] * 2), 3) is None


def test_items_equal_in_the_window_come_by_all_time_counts():
    items = np.array([2, 2, 2, 1, 0, 1])
    times = np.array([0, 0, 0, 0, NOW, NOW])
    counts = recent_counts(items, times, 4)
    assert counts is not None
    [ranked] = Popularity(counts, filter_seen=False).rank(histories([]), [4], [[]])
    # Items 1 and 0 have one event each in the window, and two and one ever; 2 has only old ones.
    assert ranked.item_indexes == [1, 0, 2, 3]


class TestPopularity:
    COUNTS = torch.tensor([5, 9, 0, 9, 2])  # order 1 3 0 4 2
    HISTORIES = [History.of_items([1, 4]), History.of_items([]), History.of_items([3, 3, 0])]

    def rank(self, filter_seen: bool, top_k: list[int], excluded: list[list[int]]):
        ranker = Popularity(self.COUNTS, filter_seen)
        return ranker.rank(self.HISTORIES, top_k, excluded)

    def test_the_same_items_for_everyone(self):
        ranked = self.rank(False, [5, 5, 5], [[], [], []])
        assert [r.item_indexes for r in ranked] == [[1, 3, 0, 4, 2]] * 3
        assert ranked[0].scores == pytest.approx([9 / 25, 9 / 25, 5 / 25, 2 / 25, 0])
        assert {r.source for r in ranked} == {"popular"}

    def test_seen_items_are_left_out_where_asked_for(self):
        ranked = self.rank(True, [5, 5, 5], [[], [], []])
        assert [r.item_indexes for r in ranked] == [[3, 0, 2], [1, 3, 0, 4, 2], [1, 4, 2]]

    def test_top_k_is_filled_up_behind_seen_items(self):
        ranked = self.rank(True, [2, 1, 2], [[], [], []])
        assert [r.item_indexes for r in ranked] == [[3, 0], [1], [1, 4]]

    @pytest.mark.parametrize(
        ("filter_seen", "expected"),
        [(False, [[1, 0], [3, 0], [1, 3]]), (True, [[0, 2], [3, 0], [1, 4]])],
    )
    def test_excluded_items_are_left_out_too(self, filter_seen, expected):
        ranked = self.rank(filter_seen, [2, 2, 2], [[3], [1], []])
        assert [r.item_indexes for r in ranked] == expected

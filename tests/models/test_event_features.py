import datetime as dt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.models.event_features import (
    NUM_GAPS,
    CalendarVectors,
    RepeatVectors,
    gap_buckets,
    repeat_buckets,
)
from recsys.schema import NO_TARGET, UNKNOWN_TIME, Batch

DAY = 86_400
START = 1_700_000_000


def batch_of(items: list[int], times: list[int]) -> Batch:
    """One user's events."""
    row, zeros = torch.tensor([items]), torch.zeros(1, len(items), dtype=torch.int64)
    targets = torch.full_like(zeros, NO_TARGET)
    return Batch(row, torch.tensor([times]), zeros, torch.tensor([len(items)]), targets)


class TestGapBuckets:
    @pytest.mark.parametrize(
        ("seconds", "bucket"),
        [
            (0, 1),  # log2(0 + 1) = 0, and 0 itself stands for unknown
            (1, 2),  # log2(2) = 1
            (2, 2),  # log2(3) = 1.58
            (3, 3),  # log2(4) = 2
            (DAY, 17),  # log2(86401) = 16.4
            (2**31 - 2, 31),
            (2**31 - 1, 32),
            (2**40, NUM_GAPS),  # clamped
            (-5, 1),  # out of order counts as no gap
        ],
    )
    def test_by_hand(self, seconds, bucket):
        assert gap_buckets(torch.tensor([[START, START + seconds]])).tolist() == [[0, bucket]]

    def test_first_event_has_no_gap_whatever_comes_last(self):
        """The row is rolled to find the event before: the last must not become the first's."""
        times = torch.tensor([[START + DAY, START + DAY + 1, START]])
        assert gap_buckets(times).tolist() == [[0, 2, 1]]

    def test_unknown_times_on_either_side(self):
        times = torch.tensor([[0, UNKNOWN_TIME, START, START + 1, UNKNOWN_TIME, UNKNOWN_TIME]])
        assert gap_buckets(times).tolist() == [[0, 0, 0, 2, 0, 0]]

    def test_time_zero_is_a_known_time(self):
        assert gap_buckets(torch.tensor([[0, 0, 1]])).tolist() == [[0, 1, 2]]

    def test_every_power_of_two_starts_a_bucket(self):
        for power in range(1, 31):
            gap = 2**power - 1
            times = torch.tensor([[0, gap - 1, 2 * gap - 1]])
            assert gap_buckets(times).tolist() == [[0, power, power + 1]]


class TestRepeatBuckets:
    def test_by_hand(self):
        items = torch.tensor([[7, 7, 3, 7, 7, 7, 7, 3, 9]])
        assert repeat_buckets(items).tolist() == [[0, 1, 0, 2, 3, 3, 4, 1, 0]]

    @given(items=st.lists(st.integers(0, 4), min_size=1, max_size=12))
    def test_counts_as_one_reads(self, items):
        starts = (1, 2, 3, 5)
        seen = [items[:t].count(items[t]) for t in range(len(items))]
        expected = [sum(count >= start for start in starts) for count in seen]
        assert repeat_buckets(torch.tensor([items])).tolist() == [expected]

    def test_another_user_and_another_numbering_of_items_change_nothing(self):
        rows = torch.tensor([[1, 2, 1, 1], [2, 2, 2, 1]])
        assert torch.equal(repeat_buckets(rows + 100), repeat_buckets(rows))
        assert torch.equal(repeat_buckets(rows)[1:], repeat_buckets(rows[1:]))


class TestRepeatVectors:
    def test_an_item_just_before_is_told_from_one_long_before(self):
        repeats = RepeatVectors(4)
        with torch.no_grad():
            vectors = repeats(batch_of([5, 5, 6, 5, 5], [0] * 5))[0]
            counts, agains = torch.tensor([0, 1, 0, 2, 3]), torch.tensor([0, 1, 0, 0, 1])
            expected = repeats.count.weight[counts] + repeats.again.weight[agains]
        assert torch.equal(vectors, expected)

    def test_the_first_event_is_never_a_repeat_whatever_comes_last(self):
        repeats = RepeatVectors(4)
        vectors = repeats(batch_of([5, 6, 5], [0] * 3))[0]
        assert torch.equal(vectors[0], vectors[1])
        assert not torch.equal(vectors[2], vectors[1])


class TestCalendar:
    @given(time=st.integers(0, 2**33))
    def test_hour_and_day_are_those_of_the_calendar(self, time):
        calendar = CalendarVectors(4)
        told = dt.datetime.fromtimestamp(time, dt.UTC)
        with torch.no_grad():
            vector = calendar(batch_of([0], [time]))[0, 0]
            expected = calendar.hour.weight[told.hour] + calendar.weekday.weight[told.weekday()]
        assert torch.equal(vector, expected)

    def test_an_unknown_time_has_none(self):
        vectors = CalendarVectors(4)(batch_of([0, 0], [START, UNKNOWN_TIME]))[0]
        assert vectors[0].abs().min() > 0
        assert (vectors[1] == 0).all()

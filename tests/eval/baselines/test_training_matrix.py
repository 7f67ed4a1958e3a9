"""Windows joined to whole users, each event counted once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.history import Sequences
from recsys.data.split import train_windows
from recsys.eval.baselines import training_matrix
from recsys.eval.baselines.training_matrix import check_size, join_windows
from tests.eval.baselines.made import make_rows


def test_windows_of_one_sequence_share_one_event_which_counts_once():
    rows = make_rows([("a", [3, 1, 3], [1, 2, 3]), ("a", [3, 0], [3, 4]), ("b", [2, 2], [5, 6])])
    matrix = join_windows(rows, 4)
    assert matrix.counts.toarray().tolist() == [[1, 1, 0, 2], [0, 0, 2, 0]]
    assert matrix.item_indexes.tolist() == [3, 1, 3, 0, 2, 2]
    assert matrix.timestamps.tolist() == [1, 2, 3, 4, 5, 6]


def test_windows_of_two_sessions_share_none():
    rows = make_rows([("a", [0, 1], [1, 2]), ("a", [1, 2], [900, 901])])
    assert join_windows(rows, 3).counts.toarray().tolist() == [[1, 2, 1]]


def test_another_users_window_never_goes_on_from_ones_own():
    rows = make_rows([("a", [0, 1], None), ("b", [1, 2], None)])
    assert join_windows(rows, 3).counts.toarray().tolist() == [[1, 1, 0], [0, 1, 1]]


def test_a_users_windows_may_lie_apart():
    rows = make_rows([("a", [0, 1], [1, 2]), ("b", [2, 2], [1, 2]), ("a", [1, 0], [2, 3])])
    matrix = join_windows(rows, 3)
    assert matrix.counts.toarray().tolist() == [[2, 1, 0], [0, 0, 2]]
    assert matrix.windows_of(np.array([0]))[0].item_indexes.tolist() == [1, 0]


def test_the_newest_windows_stand_in_the_order_of_the_users():
    rows = make_rows([("z", [0, 1], [1, 2]), ("z", [1, 2], [2, 3]), ("a", [2, 0], [1, 2])])
    windows = join_windows(rows, 3).windows_of(np.array([1, 0]))
    assert [window.item_indexes.tolist() for window in windows] == [[2, 0], [1, 2]]


@pytest.mark.parametrize("max_history", [1, 2, 3, 5, 50])
def test_what_prepare_cuts_is_joined_whole(max_history: int):
    lengths = np.array([2, 7, 11, 13])
    items = np.random.default_rng(0).integers(0, 5, lengths.sum())
    ids = pa.array([f"u{user}" for user in range(len(lengths))], pa.large_string())
    nothing = np.zeros(len(items), np.int8)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sequences = Sequences(ids, offsets, items, np.arange(len(items)), nothing, nothing)
    matrix = join_windows(train_windows(sequences, nothing, max_history), 5)
    assert matrix.item_indexes.tolist() == items.tolist()
    assert matrix.timestamps.tolist() == list(range(len(items)))
    expected = [np.bincount(part, minlength=5) for part in np.split(items, offsets[1:-1])]
    assert matrix.counts.toarray().astype(int).tolist() == np.stack(expected).tolist()


def test_too_many_events_name_the_baselines_and_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training_matrix, "MAX_EVENTS", 10)
    check_size(10, ["als"])
    with pytest.raises(ValueError, match=r"11 training events .* als, item_knn: .* up to 10\."):
        check_size(11, ["als", "item_knn"])

"""The order of an epoch, and that each of its windows is seen once, whatever happens on the way."""

from __future__ import annotations

import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.training.cursor import Cursor, TrainWindows, rank_places

FILE_SIZES = (7, 5, 11)
NUM_WINDOWS = sum(FILE_SIZES)
FILE_OF_WINDOW = [number for number, size in enumerate(FILE_SIZES) for _ in range(size)]
USERS = [f"u{number}" for number in range(NUM_WINDOWS)]
EVERYTHING_AT_ONCE = 1_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Three train files with one window a user; a valid file that must not be read."""
    folder: Path = tmp_path_factory.mktemp("cursor") / "dataset"
    writer = ArtifactWriter(folder, "dataset")
    first = 0
    for number, size in enumerate(FILE_SIZES):
        writer.add_table(f"train/part-{number}.parquet", windows_of(range(first, first + size)))
        first += size
    writer.add_table("valid/part-0.parquet", windows_of(range(900, 905)))
    writer.publish({}, {}, {"rows": {"train": NUM_WINDOWS, "valid": 5}})
    return open_artifact(folder, "dataset")


def windows_of(users: range) -> pa.Table:
    """Each window's values name its user, so that a row that was mixed up shows."""
    return pa.table(
        {
            "user_id": [f"u{user}" for user in users],
            "item_indexes": [[user, user + 1] for user in users],
            "timestamps": [[user * 10, user * 10 + 5] for user in users],
            "events": [[0, user % 3] for user in users],
        }
    )


def make(
    dataset: Artifact, seed: int = 0, shuffle: int = EVERYTHING_AT_ONCE, buckets: bool = False
) -> TrainWindows:
    return TrainWindows(dataset, seed, shuffle, buckets)


def users_of(table: pa.Table) -> list[str]:
    return table["user_id"].to_pylist()


def rank_rows(batch: pa.Table, rank: int, world_size: int) -> pa.Table:
    return batch.take(pa.array(rank_places(batch, rank, world_size)))


def epoch_order(windows: TrainWindows, epoch: int = 0, batch_size: int = 4) -> list[str]:
    batches = windows.batches(Cursor(epoch), batch_size)
    return [user for batch in batches for user in users_of(batch)]


def file_of(user: str) -> int:
    return FILE_OF_WINDOW[USERS.index(user)]


shuffles = pytest.mark.parametrize("shuffle", [1, 6, 12, EVERYTHING_AT_ONCE])
batch_sizes = pytest.mark.parametrize("batch_size", [1, 4, 6, NUM_WINDOWS, 100])


class TestOneEpoch:
    @shuffles
    @batch_sizes
    @pytest.mark.parametrize("world_size", [1, 2, 3])
    def test_every_window_exactly_once_over_all_ranks(
        self, dataset, shuffle, batch_size, world_size
    ):
        seen = Counter()
        for batch in make(dataset, shuffle=shuffle).batches(Cursor(), batch_size):
            for rank in range(world_size):
                seen.update(users_of(rank_rows(batch, rank, world_size)))
        assert seen == Counter(USERS)

    @shuffles
    @batch_sizes
    def test_all_batches_but_the_last_are_full(self, dataset, shuffle, batch_size):
        sizes = [len(b) for b in make(dataset, shuffle=shuffle).batches(Cursor(), batch_size)]
        full, rest = divmod(NUM_WINDOWS, batch_size)
        assert sizes == [batch_size] * full + ([rest] if rest else [])

    @pytest.mark.parametrize(
        ("batch_size", "steps"), [(1, 23), (4, 6), (6, 4), (22, 2), (23, 1), (100, 1)]
    )
    def test_steps_are_the_number_of_batches(self, dataset, batch_size, steps):
        windows = make(dataset)
        assert windows.steps(batch_size) == steps
        assert len(list(windows.batches(Cursor(), batch_size))) == steps

    @shuffles
    def test_rows_stay_whole(self, dataset, shuffle):
        for batch in make(dataset, shuffle=shuffle).batches(Cursor(), 4):
            for row in batch.to_pylist():
                user = int(row["user_id"][1:])
                assert row == windows_of(range(user, user + 1)).to_pylist()[0]

    def test_windows_of_different_files_are_shuffled_together(self, dataset):
        files = [file_of(user) for user in epoch_order(make(dataset))]
        assert sum(a != b for a, b in pairwise(files)) > 2

    def test_a_small_shuffle_holds_one_file_at_a_time_and_shuffles_within(self, dataset):
        order = epoch_order(make(dataset, shuffle=1))
        assert sum(file_of(a) != file_of(b) for a, b in pairwise(order)) == 2
        for number in range(len(FILE_SIZES)):
            within = [user for user in order if file_of(user) == number]
            assert within != sorted(within, key=USERS.index)

    def test_files_come_in_another_order_each_epoch(self, dataset):
        windows = make(dataset, shuffle=1)
        first = {file_of(epoch_order(windows, epoch)[0]) for epoch in range(40)}
        assert first == {0, 1, 2}


class TestOrder:
    @shuffles
    def test_same_seed_same_order(self, dataset, shuffle):
        one, two = (make(dataset, seed=3, shuffle=shuffle) for _ in range(2))
        assert epoch_order(one, epoch=2) == epoch_order(two, epoch=2)

    def test_asking_again_gives_the_same_epoch(self, dataset):
        windows = make(dataset)
        first = epoch_order(windows, epoch=1)
        epoch_order(windows, epoch=0)
        assert epoch_order(windows, epoch=1) == first

    @shuffles
    def test_epochs_differ(self, dataset, shuffle):
        orders = [epoch_order(make(dataset, shuffle=shuffle), epoch) for epoch in range(4)]
        assert len(set(map(tuple, orders))) == 4
        assert all(sorted(order) == sorted(USERS) for order in orders)

    def test_seeds_differ_and_one_seeds_epochs_are_not_anothers(self, dataset):
        orders = [epoch_order(make(dataset, seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
        assert len(set(map(tuple, orders))) == 4

    @shuffles
    def test_order_does_not_depend_on_the_batch_size(self, dataset, shuffle):
        windows = make(dataset, shuffle=shuffle)
        assert epoch_order(windows, batch_size=4) == epoch_order(windows, batch_size=9)


class TestResume:
    @shuffles
    @pytest.mark.parametrize("epoch", [0, 2])
    def test_from_every_step_exactly_the_rest_follows(self, dataset, shuffle, epoch):
        windows = make(dataset, shuffle=shuffle)
        whole = [users_of(batch) for batch in windows.batches(Cursor(epoch), 4)]
        cursor = Cursor(epoch)
        for step, batch in enumerate(whole):
            fresh = make(dataset, shuffle=shuffle)
            assert [users_of(b) for b in fresh.batches(cursor, 4)] == whole[step:]
            cursor = cursor.after(len(batch))
        assert list(windows.batches(cursor, 4)) == []

    @shuffles
    @pytest.mark.parametrize("buckets", [False, True])
    def test_a_cursor_within_a_batch_is_refused(self, dataset, shuffle, buckets):
        windows = make(dataset, shuffle=shuffle, buckets=buckets)
        for done in set(range(NUM_WINDOWS)) - set(range(0, NUM_WINDOWS, 5)):
            with pytest.raises(AssertionError):
                next(windows.batches(Cursor(0, done, 9), 5))
        assert list(windows.batches(Cursor(0, NUM_WINDOWS, 9), 5)) == []

    def test_the_step_count_alone_changes_nothing(self, dataset):
        windows = make(dataset)
        here, there = (list(windows.batches(Cursor(0, 8, step), 4)) for step in (2, 700))
        assert [users_of(b) for b in here] == [users_of(b) for b in there]


class TestRanks:
    @pytest.mark.parametrize("world_size", [1, 2, 3, 5])
    def test_each_window_of_a_batch_is_that_of_one_rank(self, dataset, world_size):
        for batch in make(dataset).batches(Cursor(), 6):
            shares = [users_of(rank_rows(batch, rank, world_size)) for rank in range(world_size)]
            assert Counter(u for share in shares for u in share) == Counter(users_of(batch))
            sizes = [len(share) for share in shares]
            assert max(sizes) - min(sizes) <= 1

    def test_windows_go_round_there_and_back_by_hand(self):
        batch = windows_of_lengths([3, 9, 5, 8, 2, 7, 6])
        places = [rank_places(batch, rank, 3).tolist() for rank in range(3)]
        # From longest to shortest: 9 8 7, then back 6 5 3, and the 2 that is left over.
        assert places == [[1, 0, 4], [3, 2], [5, 6]]

    def test_a_rank_may_get_nothing_of_the_last_batch(self):
        batch = windows_of(range(2))
        assert [len(rank_rows(batch, rank, 3)) for rank in range(3)] == [1, 1, 0]


class TestCursor:
    def test_after_a_step(self):
        assert Cursor(2, 8, 30).after(4) == Cursor(2, 12, 31)

    def test_next_epoch_keeps_counting_steps(self):
        assert Cursor(2, 23, 30).next_epoch() == Cursor(3, 0, 30)


def write_lengths(folder: str | Path, files: list[list[int]]) -> Artifact:
    """A dataset whose windows have these lengths, file by file; users are numbered throughout."""
    writer = ArtifactWriter(Path(folder) / "dataset", "dataset")
    first = 0
    for number, lengths in enumerate(files):
        writer.add_table(f"train/part-{number}.parquet", windows_of_lengths(lengths, first))
        first += len(lengths)
    writer.publish({}, {}, {"rows": {"train": first}})
    return open_artifact(Path(folder) / "dataset", "dataset")


def windows_of_lengths(lengths: list[int], first: int = 0) -> pa.Table:
    columns = {"item_indexes": pa.int32(), "timestamps": pa.int64(), "events": pa.int8()}
    return pa.table(
        {"user_id": [f"u{first + row}" for row in range(len(lengths))]}
        | {n: pa.array([[1] * k for k in lengths], pa.large_list(t)) for n, t in columns.items()}
    )


def lengths_of(batch: pa.Table) -> list[int]:
    return [len(items) for items in batch["item_indexes"].to_pylist()]


def padding_share(batches: list[pa.Table]) -> float:
    lengths = [lengths_of(batch) for batch in batches]
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


file_lengths = st.lists(
    st.lists(st.integers(2, 9), min_size=1, max_size=12), min_size=1, max_size=4
)
crashes = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9), st.integers(0, 3)), max_size=3)
examples = settings(deadline=None, max_examples=60)
both = pytest.mark.parametrize("buckets", [False, True])


class TestAnyDataset:
    @both
    @examples
    @given(
        files=file_lengths,
        batch_size=st.integers(1, 9),
        shuffle=st.integers(1, 40),
        epoch=st.integers(0, 3),
        crashes=crashes,
        last_world_size=st.integers(1, 4),
    )
    def test_each_window_once_by_any_workers_across_crashes(
        self, buckets, files, batch_size, shuffle, epoch, crashes, last_world_size
    ):
        """A run keeps the steps up to its last checkpoint; those after it are lost in the crash."""
        kept: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            dataset, cursor = write_lengths(folder, files), Cursor(epoch)
            for world_size, num_kept, num_lost in [*crashes, (last_world_size, NUM_WINDOWS**2, 0)]:
                batches = make(dataset, 5, shuffle, buckets).batches(cursor, batch_size)
                for step, batch in zip(range(num_kept + num_lost), batches, strict=False):
                    if step < num_kept:
                        for rank in range(world_size):
                            kept.update(users_of(rank_rows(batch, rank, world_size)))
                        cursor = cursor.after(len(batch))
        assert kept == Counter(f"u{user}" for user in range(sum(map(len, files))))
        assert cursor.step == -(-len(kept) // batch_size)

    @both
    @examples
    @given(files=file_lengths, batch_size=st.integers(1, 9), shuffle=st.integers(1, 40))
    def test_an_epoch_follows_from_seed_epoch_and_batch_size(
        self, buckets, files, batch_size, shuffle
    ):
        with tempfile.TemporaryDirectory() as folder:
            dataset = write_lengths(folder, files)
            one, two = (make(dataset, 5, shuffle, buckets) for _ in range(2))
            first = [users_of(batch) for batch in one.batches(Cursor(2), batch_size)]
            assert first == [users_of(batch) for batch in two.batches(Cursor(2), batch_size)]
            sizes = [len(batch) for batch in first]
            assert all(size == batch_size for size in sizes[:-1])
            for done in range(len(sizes) + 1):
                cursor = Cursor(2, sum(sizes[:done]), done)
                rest = make(dataset, 5, shuffle, buckets).batches(cursor, batch_size)
                assert [users_of(batch) for batch in rest] == first[done:]


LENGTHS = (2 + np.random.default_rng(0).geometric(0.1, 1_000).clip(max=49)).tolist()


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """1,003 windows of very different lengths in three files."""
    files = [LENGTHS[:300], LENGTHS[300:800], [*LENGTHS[800:], 9, 2, 30]]
    return write_lengths(tmp_path_factory.mktemp("uneven"), files)


class TestLengthBuckets:
    def test_little_of_a_batch_is_padding(self, uneven):
        def share(shuffle: int, buckets: bool) -> float:
            windows = make(uneven, shuffle=shuffle, buckets=buckets)
            return padding_share(list(windows.batches(Cursor(), 32)))

        assert share(EVERYTHING_AT_ONCE, buckets=False) > 0.5
        assert share(2_000, buckets=True) < 0.08
        assert share(400, buckets=True) < 0.15

    def test_batches_come_in_random_order_of_length(self, uneven):
        batches = list(make(uneven, shuffle=2_000, buckets=True).batches(Cursor(), 32))
        longest = [max(lengths_of(batch)) for batch in batches]
        rises = sum(a < b for a, b in pairwise(longest))
        assert 0.3 < rises / len(longest) < 0.7

    def test_epochs_and_seeds_differ_in_their_batches_and_in_their_order(self, uneven):
        orders = [
            [users_of(b) for b in make(uneven, seed, 2_000, True).batches(Cursor(epoch), 32)]
            for seed in (0, 1)
            for epoch in (0, 1)
        ]
        assert len({tuple(map(tuple, order)) for order in orders}) == 4
        batches = [{tuple(sorted(batch)) for batch in order} for order in orders]
        for other in batches[1:]:
            assert len(batches[0] & other) <= 2

    @pytest.mark.parametrize("world_size", [2, 3, 4, 8])
    @both
    def test_ranks_get_the_same_number_of_events_but_for_one_window(
        self, uneven, world_size, buckets
    ):
        for batch in make(uneven, shuffle=300, buckets=buckets).batches(Cursor(), 32):
            lengths = lengths_of(batch)
            shares = [rank_rows(batch, rank, world_size) for rank in range(world_size)]
            events = [sum(lengths_of(share)) for share in shares]
            divides = len(batch) % world_size == 0
            bound = max(lengths) - min(lengths) if divides else max(lengths)
            assert max(events) - min(events) <= bound

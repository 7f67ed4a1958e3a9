"""What a rank trains on: its batches, made ahead on a thread, weighted and altered as told."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import AugmentConfig, ModelConfig, TrainingConfig
from recsys.data.augment import Augmenter
from recsys.data.collate import collate_windows, histories_of
from recsys.models.losses import softmax_loss
from recsys.schema import NO_TARGET, Batch, History
from recsys.training.cursor import Cursor, TrainWindows
from recsys.training.ingest import Ingest, RankBatches, Ready
from recsys.training.job import check_training, nearest_items, read_event_weights

EVENTS = ["view", "click", "purchase"]
NUM_ITEMS = 50
NEIGHBOURS = (np.arange(NUM_ITEMS)[:, None] + [1, 2]) % NUM_ITEMS
LENGTHS = [[2, 5, 3, 9, 2], [4, 4, 7], [3, 2, 2, 6, 5, 8, 3]]
NUM_WINDOWS = sum(map(len, LENGTHS))
TIMEOUT_S = 30


def write_dataset(folder: str | Path, files: list[list[int]]) -> Artifact:
    """Windows of these lengths, file by file, with random content."""
    random = np.random.default_rng(0)
    writer = ArtifactWriter(Path(folder) / "dataset", "dataset")
    for number, lengths in enumerate(files):
        writer.add_table(f"train/part-{number}.parquet", table_of(lengths, random))
    rows = {"train": sum(map(len, files))}
    writer.publish({"prepare": {"events": EVENTS}}, {}, {"rows": rows})
    return open_artifact(Path(folder) / "dataset", "dataset")


def table_of(lengths: list[int], random: np.random.Generator) -> pa.Table:
    def lists(kind: pa.DataType, high: int) -> pa.Array:
        values = [np.sort(random.integers(high, size=length)).tolist() for length in lengths]
        return pa.array(values, pa.large_list(kind))

    return pa.table(
        {
            "user_id": [f"u{row}" for row in range(len(lengths))],
            "item_indexes": lists(pa.int32(), NUM_ITEMS),
            "timestamps": lists(pa.int64(), 10**9),
            "events": lists(pa.int8(), len(EVENTS)),
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Fifteen windows in three files."""
    return write_dataset(tmp_path_factory.mktemp("ingest"), LENGTHS)


def batches_of(
    dataset: Artifact, batch_size: int = 4, rank: int = 0, world_size: int = 1, **options: Any
) -> RankBatches:
    windows = TrainWindows(dataset, seed=3, shuffle_windows=1_000, length_buckets=True)
    return RankBatches(windows, batch_size, rank, world_size, **options)


def altering(**shares: float) -> Augmenter:
    return Augmenter(AugmentConfig(**shares), 3, NEIGHBOURS)  # type: ignore[arg-type]


def rows_of(batch: Batch) -> list[tuple]:
    """Each row without padding."""
    columns = (batch.item_indexes, batch.timestamps, batch.events, batch.targets)
    lengths = batch.lengths.tolist()
    return [
        tuple(tuple(column[row, :length].tolist()) for column in columns)
        for row, length in enumerate(lengths)
    ]


def all_rows(items: Iterator[Ready | None]) -> list[list[tuple] | None]:
    return [None if ready is None else rows_of(ready.batch) for ready in items]


def assert_same(one: Batch, other: Batch) -> None:
    for name in ("item_indexes", "timestamps", "events", "lengths", "targets"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


class TestRankBatches:
    def test_every_epoch_is_there_and_ends_with_none(self, dataset):
        found = list(batches_of(dataset).epochs(Cursor(), 3))
        ends = [place for place, ready in enumerate(found) if ready is None]
        assert ends == [4, 9, 14]
        sizes = [ready.num_windows for ready in found if ready]
        assert sizes == [4, 4, 4, 3] * 3

    @settings(deadline=None, max_examples=25)
    @given(
        batch_size=st.integers(1, 7),
        world_size=st.integers(1, 4),
        done=st.integers(0, 15),
        altered=st.booleans(),
    )
    def test_ranks_hold_the_rows_of_one_worker_also_after_a_restart(
        self, dataset, batch_size, world_size, done, altered
    ):
        """Augmented windows too: the rest of the run does not depend on who does it."""
        options = {
            "augmenter": altering(crop=0.4, substitute=0.4, max_length=9) if altered else None
        }
        alone = all_rows(batches_of(dataset, batch_size, **options).epochs(Cursor(), 3))
        steps = -(-NUM_WINDOWS // batch_size)
        epoch, step = divmod(done, steps)
        cursor = Cursor(epoch, min(step * batch_size, NUM_WINDOWS), done)
        ranks = [
            all_rows(batches_of(dataset, batch_size, r, world_size, **options).epochs(cursor, 3))
            for r in range(world_size)
        ]
        rest = alone[done + epoch :]
        for whole, *shares in zip(rest, *ranks, strict=True):
            if whole is None:
                assert shares == [None] * world_size
            else:
                learned = [row for share in shares for row in share if set(row[-1]) != {NO_TARGET}]
                assert sorted(learned) == sorted(whole)

    def test_a_rank_without_windows_takes_part_without_targets(self, dataset):
        last = list(batches_of(dataset, 7, rank=2, world_size=3).epochs(Cursor(), 1))[-2]
        assert last is not None
        assert last.num_windows == 1
        assert last.batch.item_indexes.shape[0] == 1
        assert (last.batch.targets == NO_TARGET).all()

    def test_shares_of_nothing_give_the_very_same_batches(self, dataset):
        plain = batches_of(dataset).epochs(Cursor(), 2)
        untouched = batches_of(dataset, augmenter=altering()).epochs(Cursor(), 2)
        for one, other in zip(plain, untouched, strict=True):
            assert (one is None) == (other is None)
            if one and other:
                assert_same(one.batch, other.batch)

    def test_rows_of_a_table_and_their_histories_give_the_same_batch(self, dataset):
        for table in TrainWindows(dataset, 0, 1_000, True).batches(Cursor(), 4):
            weights = np.array([1.0, 2.0, 5.0], dtype=np.float32)
            one, other = (collate_windows(w, weights) for w in (table, histories_of(table)))
            assert_same(one, other)
            assert torch.equal(one.weights, other.weights)


def ready(number: int) -> Ready:
    return Ready(collate_windows([History.of_items([number, number])]), number)


def numbers(count: int, made: Callable[[int], object] = lambda _: None) -> Iterator[Ready | None]:
    """Two epochs of so many batches."""
    for epoch in range(2):
        for number in range(count):
            made(number)
            yield ready(epoch * count + number)
        yield None


def ingest_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("ingest") and t.is_alive()]


class TestIngest:
    @pytest.fixture(autouse=True)
    def no_thread_is_left(self) -> Iterator[None]:
        assert ingest_threads() == []
        yield
        assert ingest_threads() == []

    @pytest.mark.parametrize("ahead", [1, 2, 30])
    def test_order_and_epochs_are_kept(self, ahead):
        with Ingest(numbers(5), ahead) as ingest:
            assert len(ingest_threads()) == 1
            assert [r.num_windows for r in ingest.epoch()] == [0, 1, 2, 3, 4]
            assert [r.num_windows for r in ingest.epoch()] == [5, 6, 7, 8, 9]

    def test_batches_are_the_iterators_own(self, dataset):
        with Ingest(batches_of(dataset).epochs(Cursor(), 2)) as ingest:
            found = [r for _ in range(2) for r in ingest.epoch()]
        expected = [r for r in batches_of(dataset).epochs(Cursor(), 2) if r]
        for one, other in zip(found, expected, strict=True):
            assert one.num_windows == other.num_windows
            assert_same(one.batch, other.batch)

    def test_batches_are_made_on_another_thread_before_they_are_asked_for(self):
        made, makers = threading.Semaphore(0), set()

        def note(_: int) -> None:
            makers.add(threading.current_thread())
            made.release()

        with Ingest(numbers(9, note), ahead=3):
            for _ in range(3):
                assert made.acquire(timeout=TIMEOUT_S)
        assert makers
        assert threading.main_thread() not in makers

    def test_never_more_are_ahead_than_allowed(self):
        made: list[int] = []
        with Ingest(numbers(200, made.append), ahead=3) as ingest:
            for taken, _ in enumerate(ingest.epoch(), start=1):
                assert len(made) <= taken + 3

    def test_what_the_iterator_raises_comes_with_its_cause_after_the_batches_before_it(self):
        def broken() -> Iterator[Ready | None]:
            yield ready(0)
            yield ready(1)
            try:
                raise OSError("connection reset")
            except OSError as error:
                raise ValueError("part-7.parquet cannot be read") from error

        with Ingest(broken()) as ingest:
            batches = ingest.epoch()
            assert [next(batches).num_windows for _ in range(2)] == [0, 1]
            with pytest.raises(ValueError, match="part-7") as found:
                next(batches)
        assert isinstance(found.value.__cause__, OSError)
        assert any(entry.name == "broken" for entry in found.traceback)

    def test_a_file_that_went_away_is_named(self, tmp_path):
        dataset = write_dataset(tmp_path, LENGTHS)
        (tmp_path / "dataset" / "train" / "part-1.parquet").unlink()
        with (
            pytest.raises((OSError, ValueError), match=r"part-1\.parquet"),
            Ingest(batches_of(dataset).epochs(Cursor(), 1)) as ingest,
        ):
            list(ingest.epoch())

    def test_the_thread_ends_when_the_loop_breaks(self):
        with Ingest(numbers(100)) as ingest:
            for batch in ingest.epoch():
                if batch.num_windows == 7:
                    break
        assert ingest_threads() == []

    def test_the_thread_ends_when_the_step_fails(self):
        def train() -> None:
            with Ingest(numbers(100)) as ingest:
                for _ in ingest.epoch():
                    raise FloatingPointError("loss is nan")

        with pytest.raises(FloatingPointError):
            train()
        assert ingest_threads() == []

    def test_a_batch_that_does_not_come_is_told_of_and_not_waited_for(self):
        hangs = threading.Event()
        with (
            pytest.raises(TimeoutError, match=r"no batch came in 0\.05 s"),
            Ingest(numbers(4, lambda _: hangs.wait(TIMEOUT_S)), timeout_s=0.05) as ingest,
        ):
            next(ingest.epoch())
        [hanging] = ingest_threads()
        hangs.set()
        hanging.join(TIMEOUT_S)

    def test_a_timeout_of_the_storage_is_raised_as_it_is(self):
        def fails(_: int) -> None:
            raise TimeoutError("the storage said so")

        with (
            pytest.raises(TimeoutError, match="the storage said so"),
            Ingest(numbers(4, fails)) as ingest,
        ):
            next(ingest.epoch())


class TestEventWeights:
    def test_names_that_are_missing_weigh_1(self, dataset):
        training = TrainingConfig(event_weights={"purchase": 5.0, "click": 0.0})
        found = read_event_weights(training, dataset)
        assert found is not None
        assert found.tolist() == [1.0, 0.0, 5.0]
        assert read_event_weights(TrainingConfig(), dataset) is None

    def test_an_unknown_name_is_refused_with_the_names_there_are(self, dataset):
        training = TrainingConfig(event_weights={"buy": 5.0, "view": 1.0})
        with pytest.raises(ValueError, match=r"event_weights names buy;.* view, click, purchase"):
            check_training(ModelConfig(), training, dataset)

    def test_the_loss_is_the_weighted_mean(self):
        items = torch.eye(3)
        users = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        targets = torch.tensor([0, 2])
        hit = math.log(math.e + 2) - 1
        miss = math.log(math.e + 2)
        weights = torch.tensor([1.0, 3.0])
        loss = softmax_loss(users, items, targets, 1.0, weights_P=weights)
        assert loss.item() == pytest.approx((hit + 3 * miss) / 4, rel=1e-6)

    @pytest.mark.parametrize("weight", [1.0, 0.001])
    def test_equal_weights_of_any_size_are_the_plain_mean(self, weight):
        generator = torch.Generator().manual_seed(0)
        users, items = (torch.randn(n, 4, generator=generator) for n in (5, 7))
        targets = torch.tensor([0, 6, 3, 3, 1])
        plain = softmax_loss(users, items, targets, 0.5)
        weighted = softmax_loss(users, items, targets, 0.5, weights_P=torch.full((5,), weight))
        torch.testing.assert_close(weighted, plain)

    @pytest.mark.parametrize("num_targets", [0, 3])
    def test_without_a_weight_above_0_loss_and_gradient_are_0(self, num_targets):
        users = torch.ones(num_targets, 4, requires_grad=True)
        items = torch.eye(4, requires_grad=True)
        targets = torch.arange(num_targets)
        loss = softmax_loss(users, items, targets, 0.1, weights_P=torch.zeros(num_targets))
        loss.backward()
        assert loss.item() == 0.0
        assert items.grad is not None
        assert (items.grad == 0).all()


class TestNeighbours:
    @settings(deadline=None, max_examples=20)
    @given(rows=st.integers(2, 30), count=st.integers(1, 12), block=st.integers(1, 31))
    def test_they_are_the_largest_cosines_but_the_item_itself(self, rows, count, block):
        vectors = torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows))
        found = nearest_items(vectors, count, block)
        unit = (vectors / vectors.norm(dim=1, keepdim=True)).double()
        cosines = (unit @ unit.T).numpy()
        for row, neighbours in enumerate(found):
            others = [other for other in range(rows) if other != row]
            best = sorted(others, key=lambda other: -cosines[row, other])[:count]
            assert neighbours.tolist() == best

    @pytest.mark.parametrize(
        "model", [{"tuning": "lora"}, {"tuning": "full"}, {"item_features": "id"}]
    )
    def test_substitution_without_cached_text_is_refused_with_the_reason(self, dataset, model):
        training = TrainingConfig(augment=AugmentConfig(substitute=0.1))
        with pytest.raises(ValueError, match="cached text vectors of a frozen backbone"):
            check_training(ModelConfig(**model), training, dataset)
        check_training(ModelConfig(), training, dataset)
        check_training(ModelConfig(**model), TrainingConfig(), dataset)

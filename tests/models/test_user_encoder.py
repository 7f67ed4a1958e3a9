import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.collate import collate_histories
from recsys.models.user_encoder import NUM_GAPS, UserEncoder, gap_buckets
from recsys.schema import NO_TARGET, UNKNOWN_TIME, Batch, History

SIZE, MAX_HISTORY, NUM_ITEMS, NUM_EVENTS = 16, 12, 40, 3
DAY = 86_400
START = 1_700_000_000


def fresh_encoder(use_time: bool = True, num_layers: int = 2) -> UserEncoder:
    torch.manual_seed(0)
    return UserEncoder(
        embedding_size=SIZE,
        num_layers=num_layers,
        num_heads=2,
        max_history=MAX_HISTORY,
        num_events=NUM_EVENTS,
        dropout=0.0,
        use_time=use_time,
    ).eval()


def loud_encoder(use_time: bool = True) -> UserEncoder:
    """An encoder whose every weight is large, so that a leak from anywhere is seen."""
    encoder = fresh_encoder(use_time)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder


def item_table() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(NUM_ITEMS, SIZE, generator=generator), dim=-1)


def random_history(length: int, seed: int) -> History:
    random = np.random.default_rng(seed)
    return History(
        random.integers(0, NUM_ITEMS, length),
        START + np.cumsum(random.integers(0, 3 * DAY, length)),
        random.integers(0, NUM_EVENTS, length),
    )


def random_batch(rows: int, length: int, seed: int) -> Batch:
    return collate_histories([random_history(length, seed + r) for r in range(rows)], length)


def taken(batch: Batch, rows: list[int]) -> Batch:
    return Batch(
        batch.item_indexes[rows],
        batch.timestamps[rows],
        batch.events[rows],
        batch.lengths[rows],
        batch.targets[rows],
    )


def encode(encoder: UserEncoder, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return encoder(item_table()[batch.item_indexes], batch)


class TestCausality:
    @pytest.mark.parametrize("part", ["item_indexes", "timestamps", "events"])
    @settings(max_examples=12, deadline=None)
    @given(cut=st.integers(0, 6), seed=st.integers(0, 1000))
    def test_changing_the_future_changes_no_earlier_output(self, part, cut, seed):
        encoder = loud_encoder()
        batch = random_batch(rows=3, length=8, seed=seed)
        other = random_batch(rows=3, length=8, seed=seed + 5000)
        before = encode(encoder, batch)
        getattr(batch, part)[:, cut + 1 :] = getattr(other, part)[:, cut + 1 :]
        after = encode(encoder, batch)
        torch.testing.assert_close(after[:, : cut + 1], before[:, : cut + 1], atol=1e-6, rtol=0)

    @pytest.mark.parametrize("part", ["item_indexes", "timestamps", "events"])
    def test_changing_the_past_changes_every_later_output(self, part):
        encoder = loud_encoder()
        batch = random_batch(rows=1, length=8, seed=3)
        before = encode(encoder, batch)
        if part == "timestamps":
            batch.timestamps[:, 2] += 1000 * DAY
        else:
            getattr(batch, part)[:, 2] = (getattr(batch, part)[:, 2] + 1) % NUM_EVENTS
        moved = (encode(encoder, batch) - before).abs().amax(-1)[0]
        assert (moved[:2] == 0).all()
        assert (moved[2:] > 1e-4).all()

    @pytest.mark.parametrize("position", [0, 3, 7])
    def test_gradient_reaches_the_past_and_is_exactly_zero_in_the_future(self, position):
        encoder = loud_encoder()
        batch = random_batch(rows=2, length=8, seed=4)
        items = item_table()[batch.item_indexes].requires_grad_()
        weights = torch.randn(SIZE, generator=torch.Generator().manual_seed(5))
        (encoder(items, batch)[:, position] @ weights).sum().backward()
        reached = items.grad.abs().amax(-1)
        assert (reached[:, position + 1 :] == 0).all()
        assert (reached[:, : position + 1] > 0).all()


class TestPadding:
    def test_a_history_alone_equals_itself_beside_longer_ones(self):
        encoder = loud_encoder()
        histories = [random_history(length, 10 + length) for length in (3, 12, 1, 7)]
        together = encode(encoder, collate_histories(histories, MAX_HISTORY))
        for row, history in enumerate(histories):
            alone = encode(encoder, collate_histories([history], MAX_HISTORY))[0]
            torch.testing.assert_close(together[row, : len(history)], alone, atol=1e-6, rtol=0)

    def test_what_stands_in_padding_is_never_seen(self):
        encoder = loud_encoder()
        batch = collate_histories([random_history(3, 1), random_history(8, 2)], MAX_HISTORY)
        before = encode(encoder, batch)
        batch.item_indexes[0, 3:] = 17
        batch.timestamps[0, 3:] = START
        batch.events[0, 3:] = 2
        after = encode(encoder, batch)
        torch.testing.assert_close(after[0, :3], before[0, :3], atol=1e-6, rtol=0)
        torch.testing.assert_close(after[1], before[1], atol=1e-6, rtol=0)


def test_order_of_the_users_in_a_batch_does_not_matter():
    encoder = loud_encoder()
    batch = random_batch(rows=5, length=9, seed=20)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(
        encode(encoder, taken(batch, order)), encode(encoder, batch)[order], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("make", [fresh_encoder, loud_encoder])
def test_outputs_have_length_one_and_are_float32(make):
    out = encode(make(), random_batch(rows=4, length=MAX_HISTORY, seed=30))
    assert out.shape == (4, MAX_HISTORY, SIZE)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(4, MAX_HISTORY))


def test_order_of_the_events_matters():
    encoder = loud_encoder(use_time=False)
    there = encode(encoder, collate_histories([History.of_items([1, 2, 3])], MAX_HISTORY))
    back = encode(encoder, collate_histories([History.of_items([2, 1, 3])], MAX_HISTORY))
    assert (there[0, -1] - back[0, -1]).abs().max() > 1e-3


def test_time_is_seen_only_where_asked_for():
    batch = random_batch(rows=2, length=6, seed=40)
    later = random_batch(rows=2, length=6, seed=40)
    later.timestamps[:, 3:] += 1000 * DAY
    without, with_time = loud_encoder(use_time=False), loud_encoder(use_time=True)
    assert torch.equal(encode(without, batch), encode(without, later))
    assert not torch.allclose(encode(with_time, batch), encode(with_time, later), atol=1e-4)


def test_items_are_not_drowned_by_positions_in_an_untrained_encoder():
    """Different histories must give different vectors: their mean cosine is near 0.

    With position vectors of standard deviation 1 it is about 0.5, and learning stalls.
    """
    encoder = fresh_encoder(use_time=False)
    last = encode(encoder, random_batch(rows=40, length=6, seed=50))[:, -1]
    cosines = last @ last.T
    off_diagonal = cosines[~torch.eye(len(last), dtype=torch.bool)]
    assert off_diagonal.mean() < 0.2
    with torch.no_grad():
        encoder.position.weight.mul_(50)
    drowned = encode(encoder, random_batch(rows=40, length=6, seed=50))[:, -1]
    assert (drowned @ drowned.T).mean() > off_diagonal.mean() + 0.2


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

    def test_every_bucket_has_a_vector(self):
        encoder = fresh_encoder()
        times = torch.tensor([[0, 2**62, 2**62]])
        zeros = torch.zeros_like(times)
        batch = Batch(zeros, times, zeros, torch.tensor([3]), torch.full((1, 3), NO_TARGET))
        assert encode(encoder, batch).isfinite().all()

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import ModelConfig
from recsys.data.collate import collate_histories
from recsys.models.build import ModelShape, build_model
from recsys.models.user_encoder import UserEncoder
from recsys.schema import NO_TARGET, Batch, History

SIZE, MAX_HISTORY, NUM_ITEMS, NUM_EVENTS = 16, 12, 40, 3
DAY = 86_400
START = 1_700_000_000


SHAPE = ModelShape(num_items=NUM_ITEMS, max_history=MAX_HISTORY, num_events=NUM_EVENTS, text_size=0)


def fresh_encoder(**changes) -> UserEncoder:
    told = {"embedding_size": SIZE, "dropout": 0.0, "use_time": True} | changes
    torch.manual_seed(0)
    model = build_model(ModelConfig(item_features="id", **told), SHAPE)
    assert isinstance(model.user_encoder, UserEncoder)
    return model.user_encoder.eval()


def loud_encoder(**changes) -> UserEncoder:
    """An encoder whose every weight is large, so that a leak from anywhere is seen."""
    encoder = fresh_encoder(**changes)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder


KINDS = ("transformer", "hstu", "gru", "gpt2", "llama", "all features")


def options(kind: str, request: pytest.FixtureRequest) -> dict:
    if kind == "all features":
        return {"use_calendar": True, "use_repeats": True}
    if kind in ("gpt2", "llama"):
        backbone = request.getfixturevalue(f"tiny_{kind}")
        return {"user_encoder": "language_model", "user_backbone": backbone}
    return {"user_encoder": kind}


@pytest.fixture(scope="module", params=KINDS)
def told(request: pytest.FixtureRequest) -> dict:
    """The options of each kind of user encoder."""
    return options(request.param, request)


@pytest.fixture(scope="module")
def loud(told: dict) -> UserEncoder:
    """A loud encoder of each kind, not to be changed."""
    return loud_encoder(**told)


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
    def test_changing_the_future_changes_no_earlier_output(self, loud, part, cut, seed):
        batch = random_batch(rows=3, length=8, seed=seed)
        other = random_batch(rows=3, length=8, seed=seed + 5000)
        before = encode(loud, batch)
        getattr(batch, part)[:, cut + 1 :] = getattr(other, part)[:, cut + 1 :]
        after = encode(loud, batch)
        torch.testing.assert_close(after[:, : cut + 1], before[:, : cut + 1], atol=1e-6, rtol=0)

    @pytest.mark.parametrize("part", ["item_indexes", "timestamps", "events"])
    def test_changing_the_past_changes_every_later_output(self, loud, part):
        batch = random_batch(rows=1, length=8, seed=3)
        before = encode(loud, batch)
        if part == "timestamps":
            batch.timestamps[:, 2] += 1000 * DAY
        else:
            getattr(batch, part)[:, 2] = (getattr(batch, part)[:, 2] + 1) % NUM_EVENTS
        moved = (encode(loud, batch) - before).abs().amax(-1)[0]
        assert (moved[:2] == 0).all()
        assert (moved[2:] > 1e-4).all()

    @pytest.mark.parametrize("position", [0, 3, 7])
    def test_gradient_reaches_the_past_and_is_exactly_zero_in_the_future(self, loud, position):
        batch = random_batch(rows=2, length=8, seed=4)
        items = item_table()[batch.item_indexes].requires_grad_()
        weights = torch.randn(SIZE, generator=torch.Generator().manual_seed(5))
        (loud(items, batch)[:, position] @ weights).sum().backward()
        reached = items.grad.abs().amax(-1)
        assert (reached[:, position + 1 :] == 0).all()
        assert (reached[:, : position + 1] > 0).all()


class TestPadding:
    def test_a_history_alone_equals_itself_beside_longer_ones(self, loud):
        histories = [random_history(length, 10 + length) for length in (3, 12, 1, 7)]
        together = encode(loud, collate_histories(histories, MAX_HISTORY))
        for row, history in enumerate(histories):
            alone = encode(loud, collate_histories([history], MAX_HISTORY))[0]
            torch.testing.assert_close(together[row, : len(history)], alone, atol=1e-6, rtol=0)

    def test_what_stands_in_padding_is_never_seen(self, loud):
        batch = collate_histories([random_history(3, 1), random_history(8, 2)], MAX_HISTORY)
        before = encode(loud, batch)
        batch.item_indexes[0, 3:] = 17
        batch.timestamps[0, 3:] = START
        batch.events[0, 3:] = 2
        after = encode(loud, batch)
        torch.testing.assert_close(after[0, :3], before[0, :3], atol=1e-6, rtol=0)
        torch.testing.assert_close(after[1], before[1], atol=1e-6, rtol=0)


def test_order_of_the_users_in_a_batch_does_not_matter(loud):
    batch = random_batch(rows=5, length=9, seed=20)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(
        encode(loud, taken(batch, order)), encode(loud, batch)[order], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("make", [fresh_encoder, loud_encoder])
def test_outputs_have_length_one_and_are_float32(make, told):
    out = encode(make(**told), random_batch(rows=4, length=MAX_HISTORY, seed=30))
    assert out.shape == (4, MAX_HISTORY, SIZE)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(4, MAX_HISTORY))


def test_order_of_the_events_matters(told):
    encoder = loud_encoder(**told | {"use_time": False})
    there = encode(encoder, collate_histories([History.of_items([1, 2, 3])], MAX_HISTORY))
    back = encode(encoder, collate_histories([History.of_items([2, 1, 3])], MAX_HISTORY))
    assert (there[0, -1] - back[0, -1]).abs().max() > 1e-3


def test_time_is_seen_only_where_asked_for(told):
    batch = random_batch(rows=2, length=6, seed=40)
    later = random_batch(rows=2, length=6, seed=40)
    later.timestamps[:, 3:] += 1000 * DAY
    told = {**told, "use_calendar": False}
    without, with_time = loud_encoder(**told | {"use_time": False}), loud_encoder(**told)
    assert torch.equal(encode(without, batch), encode(without, later))
    assert not torch.allclose(encode(with_time, batch), encode(with_time, later), atol=1e-4)


def test_calendar_and_repeats_are_seen_only_where_asked_for():
    batch = random_batch(rows=2, length=6, seed=40)
    items = item_table()[batch.item_indexes]
    for option, part in (("use_calendar", "timestamps"), ("use_repeats", "item_indexes")):
        other = random_batch(rows=2, length=6, seed=40)
        getattr(other, part)[:, 3:] = getattr(other, part)[:, 2:3]
        for asked in (False, True):
            encoder = loud_encoder(use_time=False, **{option: asked})
            with torch.no_grad():
                same = torch.equal(encoder(items, batch), encoder(items, other))
            assert same != asked, option


def test_a_batch_that_names_items_by_other_numbers_gives_the_same():
    """In training they are rows of the step's candidates."""
    encoder = loud_encoder(use_repeats=True)
    batch = collate_histories([History.of_items([3, 5, 3, 3])], MAX_HISTORY)
    items = item_table()[batch.item_indexes]
    rows = replace(batch, item_indexes=torch.tensor([[1, 2, 1, 1]]))
    with torch.no_grad():
        assert torch.equal(encoder(items, rows), encoder(items, batch))


def test_every_weight_has_a_gradient_while_it_learns(told):
    encoder = loud_encoder(**told).train()
    batch = random_batch(rows=4, length=MAX_HISTORY, seed=60)
    weights = torch.randn(SIZE, generator=torch.Generator().manual_seed(5))
    (encoder(item_table()[batch.item_indexes], batch) @ weights).square().sum().backward()
    without = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    assert not without
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_outputs_repeat_with_the_seed_and_dropout_is_there(told):
    encoder = loud_encoder(**told | {"dropout": 0.5})
    batch = random_batch(rows=4, length=MAX_HISTORY, seed=60)
    assert torch.equal(encode(encoder, batch), encode(encoder, batch))
    encoder.train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(encode(encoder, batch))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-2)


@pytest.mark.parametrize("kind", ["transformer", "hstu", "gru", "llama"])
def test_different_histories_are_far_apart_before_training(kind, request):
    encoder = fresh_encoder(**options(kind, request) | {"use_time": False})
    last = encode(encoder, random_batch(rows=40, length=6, seed=50))[:, -1]
    assert (last @ last.T)[~torch.eye(len(last), dtype=torch.bool)].mean() < 0.3


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


def test_every_bucket_has_a_vector(told):
    encoder = fresh_encoder(**told)
    times = torch.tensor([[0, 2**62, 2**62]])
    zeros = torch.zeros_like(times)
    batch = Batch(zeros, times, zeros, torch.tensor([3]), torch.full((1, 3), NO_TARGET))
    assert encode(encoder, batch).isfinite().all()

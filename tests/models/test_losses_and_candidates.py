import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from recsys.data.collate import collate_windows
from recsys.models.candidates import (
    MASKED,
    Candidates,
    draw_candidates,
    draw_uniform,
    own_items,
    targets_of,
    whole_catalogue,
)
from recsys.models.losses import OwnItems, softmax_loss, split_loss, target_ranks
from recsys.schema import NO_TARGET, Batch, History


def random_vectors(rows: int, seed: int, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, size, generator=generator), dim=-1)


class TestSoftmaxLoss:
    @pytest.mark.parametrize("with_log_q", [False, True])
    @pytest.mark.parametrize("temperature", [0.07, 1.0])
    def test_equals_a_hand_written_log_softmax(self, with_log_q, temperature):
        users, items = random_vectors(5, seed=0), random_vectors(7, seed=1)
        targets = torch.tensor([0, 6, 3, 3, 1])
        log_q = -torch.arange(7.0) / 2 if with_log_q else None
        expected = 0.0
        for user, target in zip(users.double(), targets.tolist(), strict=True):
            logits = [float(user @ item) / temperature for item in items.double()]
            if log_q is not None:
                logits = [a - float(b) for a, b in zip(logits, log_q, strict=True)]
            top = max(logits)
            total = top + math.log(sum(math.exp(logit - top) for logit in logits))
            expected += (total - logits[target]) / len(targets)
        loss = softmax_loss(users, items, targets, temperature, log_q)
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_a_masked_candidate_is_as_if_it_were_not_there(self):
        users, items = random_vectors(4, seed=2), random_vectors(6, seed=3)
        targets = torch.tensor([0, 1, 2, 3])
        log_q = torch.tensor([-1.0, -2.0, -0.5, -1.5, MASKED, MASKED])
        masked = softmax_loss(users, items, targets, 0.1, log_q)
        without = softmax_loss(users, items[:4], targets, 0.1, log_q[:4])
        torch.testing.assert_close(masked, without)

    def test_a_masked_candidate_gets_no_gradient(self):
        users, items = random_vectors(4, seed=2), random_vectors(6, seed=3).requires_grad_()
        log_q = torch.tensor([-1.0, -2.0, -0.5, -1.5, -1.0, MASKED])
        softmax_loss(users, items, torch.tensor([0, 1, 2, 3]), 0.1, log_q).backward()
        assert items.grad.isfinite().all()
        assert (items.grad[5] == 0).all()
        assert (items.grad[:5].abs().amax(-1) > 0).all()

    @pytest.mark.parametrize("log_q", [None, torch.tensor([MASKED, -1.0, -1.0])])
    def test_no_positions_give_zero_loss_and_a_zero_gradient(self, log_q):
        users = torch.zeros(0, 8, requires_grad=True)
        items = random_vectors(3, seed=4).requires_grad_()
        loss = softmax_loss(users, items, torch.zeros(0, dtype=torch.int64), 0.07, log_q)
        assert loss.item() == 0.0
        loss.backward()
        assert items.grad.shape == items.shape
        assert (items.grad == 0).all()
        assert users.grad.shape == (0, 8)


def losses_and_gradients(**options) -> list[torch.Tensor]:
    """Of 7 positions, 9 candidates of two parts, and a temperature that is learned."""
    users, items = (random_vectors(n, seed=n).requires_grad_() for n in (7, 9))
    temperature = torch.tensor(0.3, requires_grad=True)
    targets = torch.tensor([0, 8, 3, 3, 1, 5, 2])
    log_q, weights = -torch.rand(9, generator=torch.Generator().manual_seed(0)), torch.arange(7.0)
    loss = split_loss(users, items, targets, temperature, log_q, weights, 2, **options)
    loss.backward()
    return [loss.detach(), users.grad, items.grad, temperature.grad]


OWN = OwnItems(
    torch.tensor([[0, 8, 3, NO_TARGET], [3, 1, 5, 2]]), torch.tensor([0, 0, 0, 1, 1, 1, 1])
)


class LargestLogits(TorchDispatchMode):
    """The most rows that any tensor as wide as the candidates had."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.ndim == 2 and out.shape[1] == self.width:
            self.rows = max(self.rows, out.shape[0])
        return out


class CountedProducts(TorchDispatchMode):
    """How many products of matrices were computed."""

    products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += "mm" in str(func)
        return func(*args, **(kwargs or {}))


class TestChunks:
    @pytest.mark.parametrize("chunk", [1, 2, 3, 6, 7, 100])
    @pytest.mark.parametrize("own", [None, OWN])
    def test_loss_and_gradients_are_those_of_the_whole(self, chunk, own):
        whole, chunked = (losses_and_gradients(own=own, chunk=c) for c in (0, chunk))
        for expected, found in zip(whole, chunked, strict=True):
            torch.testing.assert_close(found, expected)

    def test_no_more_logits_exist_at_once_forward_or_backward(self):
        with LargestLogits(width=9) as whole:
            losses_and_gradients()
        with LargestLogits(width=9) as chunked:
            losses_and_gradients(chunk=5)
        assert (whole.rows, chunked.rows) == (7, 5)

    def test_gradients_grow_with_what_the_loss_is_multiplied_by(self):
        users, items = random_vectors(7, seed=7), random_vectors(9, seed=9).requires_grad_()
        targets = torch.tensor([0, 8, 3, 3, 1, 5, 2])
        (once,) = torch.autograd.grad(softmax_loss(users, items, targets, 0.1, chunk=2), items)
        loss = 3 * softmax_loss(users, items, targets, 0.1, chunk=2) + items.sum()
        torch.testing.assert_close(torch.autograd.grad(loss, items)[0], 3 * once + 1)

    def test_without_gradients_none_are_made(self):
        with torch.no_grad(), CountedProducts() as counted:
            loss = softmax_loss(
                random_vectors(7, seed=7), random_vectors(9, seed=9), torch.arange(7), 0.1, chunk=2
            )
        assert loss > 0
        assert counted.products == 4  # the scores of each chunk, and nothing behind them

    def test_no_positions_give_zero(self):
        users, items = torch.zeros(0, 8, requires_grad=True), random_vectors(3, seed=4)
        loss = softmax_loss(users, items, torch.zeros(0, dtype=torch.int64), 0.1, chunk=2)
        loss.backward()
        assert loss.item() == 0


class TestOwnItems:
    def test_are_the_window_of_each_position_by_hand(self):
        own = own_items(batch_of([5, 1, 3], [2, 4]))
        assert own.rows_BK.tolist() == [[5, 1, 1, 3], [2, NO_TARGET, 4, NO_TARGET]]
        assert own.user_P.tolist() == [0, 0, 1]

    def test_are_as_if_they_were_not_there_but_for_the_target(self):
        users, items = random_vectors(2, seed=2), random_vectors(6, seed=3)
        own = OwnItems(torch.tensor([[0, 2, 3], [1, 1, NO_TARGET]]), torch.tensor([0, 1]))
        found = softmax_loss(users, items, torch.tensor([2, 1]), 0.1, own=own)
        first = softmax_loss(users[:1], items[[1, 2, 4, 5]], torch.tensor([1]), 0.1)
        second = softmax_loss(users[1:], items, torch.tensor([1]), 0.1)
        torch.testing.assert_close(found, (first + second) / 2)

    def test_get_no_gradient(self):
        users, items = random_vectors(1, seed=2), random_vectors(4, seed=3).requires_grad_()
        own = OwnItems(torch.tensor([[0, 2, 3]]), torch.tensor([0]))
        softmax_loss(users, items, torch.tensor([2]), 0.1, own=own).backward()
        assert (items.grad.abs().amax(-1) > 0).tolist() == [False, True, True, False]


class TestTargetRanks:
    def test_by_hand(self):
        items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
        users = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        # The first user's scores are 1, 0, 0.6, -1; the last one's are 0, 1, 0.8, 0.
        ranks = target_ranks(users, items, torch.tensor([0, 1, 2, 3, 2]))
        assert ranks.tolist() == [0, 2, 1, 3, 1]

    def test_ties_do_not_score_above(self):
        items = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        users = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        assert target_ranks(users, items, torch.tensor([0, 1])).tolist() == [0, 0]


COUNTS = torch.tensor([4, 1, 0, 3, 2, 0, 6, 4])


def batch_of(*windows: list[int]) -> Batch:
    return collate_windows([History.of_items(list(window)) for window in windows])


def draw(batch: Batch, counts: torch.Tensor = COUNTS, negatives: int = 2, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return draw_candidates(batch, counts, negatives, generator)


def target_items(batch: Batch) -> torch.Tensor:
    return batch.targets[batch.targets != NO_TARGET]


def log_q_of(candidates: Candidates) -> torch.Tensor:
    assert candidates.log_q is not None
    return candidates.log_q


windows = st.lists(st.lists(st.integers(0, 7), min_size=2, max_size=6), min_size=1, max_size=5)


class TestDrawCandidates:
    @settings(max_examples=60, deadline=None)
    @given(windows=windows, negatives=st.integers(0, 8), seed=st.integers(0, 1000))
    def test_renumbered_batch_points_to_the_same_items(self, windows, negatives, seed):
        batch = batch_of(*windows)
        candidates, renumbered = draw(batch, negatives=negatives, seed=seed)
        items = candidates.item_indexes
        assert torch.equal(items[renumbered.item_indexes], batch.item_indexes)
        assert torch.equal(renumbered.targets == NO_TARGET, batch.targets == NO_TARGET)
        assert torch.equal(items[target_items(renumbered)], target_items(batch))
        assert torch.equal(renumbered.lengths, batch.lengths)
        assert torch.equal(renumbered.timestamps, batch.timestamps)
        assert torch.equal(renumbered.events, batch.events)

    @settings(max_examples=60, deadline=None)
    @given(windows=windows, negatives=st.integers(0, 8), seed=st.integers(0, 1000))
    def test_rows_are_unique_and_hold_every_target_unmasked(self, windows, negatives, seed):
        batch = batch_of(*windows)
        candidates, renumbered = draw(batch, negatives=negatives, seed=seed)
        items = candidates.item_indexes.tolist()
        assert len(items) == len(set(items)) == len(log_q_of(candidates))
        assert set(target_items(batch).tolist()) <= set(items)
        assert log_q_of(candidates)[target_items(renumbered)].isfinite().all()

    def test_items_only_of_histories_are_never_negatives(self):
        batch = batch_of([5, 1, 3], [2, 1, 3])  # targets 1 and 3; 5 and 2 only in histories
        candidates, _ = draw(batch, negatives=0)
        by_item = dict(
            zip(candidates.item_indexes.tolist(), log_q_of(candidates).tolist(), strict=True)
        )
        assert by_item.keys() == {1, 2, 3, 5}
        assert by_item[5] == by_item[2] == MASKED
        assert math.isfinite(by_item[1])
        assert math.isfinite(by_item[3])
        items = random_vectors(len(by_item), seed=6)
        logits = items[:1] @ items.T / 0.07 - log_q_of(candidates)
        masked = log_q_of(candidates) == MASKED
        assert (logits.softmax(-1)[0, masked] == 0).all()

    def test_padding_is_no_negative(self):
        batch = batch_of([5, 1, 3, 4], [2, 3])  # the second row is padded with item 0
        candidates, _ = draw(batch, negatives=0)
        padded = candidates.item_indexes == 0
        assert (log_q_of(candidates)[padded] == MASKED).all()

    def test_an_item_of_a_history_that_is_also_a_target_is_a_negative(self):
        candidates, _ = draw(batch_of([5, 1, 3]), negatives=0)
        row = candidates.item_indexes.tolist().index(1)
        assert math.isfinite(log_q_of(candidates)[row])

    def test_a_batch_without_targets(self):
        batch = batch_of([5, 1, 3])
        batch.targets.fill_(NO_TARGET)
        candidates, renumbered = draw(batch, negatives=2)
        assert (renumbered.targets == NO_TARGET).all()
        assert torch.equal(candidates.item_indexes[renumbered.item_indexes], batch.item_indexes)

    def test_same_seed_same_draw_and_other_seed_another(self):
        counts, batch = torch.ones(1000, dtype=torch.int64), batch_of([5, 1, 3])
        first, again, other = (
            draw(batch, counts, negatives=20, seed=seed)[0].item_indexes for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_the_batch_handed_in_is_left_as_it_is(self):
        batch = batch_of([5, 1, 3], [2, 3])
        before = batch.item_indexes.clone(), batch.targets.clone()
        draw(batch)
        assert torch.equal(batch.item_indexes, before[0])
        assert torch.equal(batch.targets, before[1])

    def test_log_q_by_hand(self):
        """20 events, 3 targets, one uniform draw of 8 items: missing is (1 - p)^3 * 7/8."""
        candidates, _ = draw(batch_of([6, 0, 3], [6, 4]), negatives=1)
        by_item = dict(
            zip(candidates.item_indexes.tolist(), log_q_of(candidates).tolist(), strict=True)
        )
        for item, popularity in ((0, 4 / 20), (3, 3 / 20), (4, 2 / 20)):
            expected = math.log(1 - (1 - popularity) ** 3 * 7 / 8)
            assert by_item[item] == pytest.approx(expected, rel=1e-5)

    def test_log_q_of_an_item_without_events_is_its_chance_in_the_uniform_draw(self):
        candidates, _ = draw(batch_of([6, 2]), negatives=1)
        row = candidates.item_indexes.tolist().index(2)
        assert log_q_of(candidates)[row].item() == pytest.approx(math.log(1 / 8), rel=1e-5)

    @pytest.mark.parametrize(
        ("num_targets", "num_negatives"), [(6, 0), (6, 2), (20, 2), (6, 20), (6, 40)]
    )
    def test_items_are_drawn_as_often_as_log_q_says(self, num_targets, num_negatives):
        """2000 draws with targets from popularity.

        A frequency's standard error is at most 0.011, so 0.05 is four and a half of them.
        """
        num_items, draws = 40, 2000
        random = np.random.default_rng(7)
        counts = np.arange(num_items) ** 2
        generator = torch.Generator().manual_seed(7)
        drawn, claimed = np.zeros(num_items), np.full(num_items, np.nan)
        for _ in range(draws):
            targets = random.choice(num_items, num_targets, p=counts / counts.sum())
            batch = batch_of(*([0, int(target)] for target in targets))
            candidates, _ = draw_candidates(
                batch, torch.as_tensor(counts), num_negatives, generator
            )
            items, log_q = candidates.item_indexes.numpy(), log_q_of(candidates).numpy()
            negatives = np.isfinite(log_q)
            drawn[items[negatives]] += 1
            claimed[items[negatives]] = np.exp(log_q[negatives])
        seen = drawn > 0
        assert seen.sum() > num_items / 2
        np.testing.assert_allclose(drawn[seen] / draws, claimed[seen], atol=0.05, rtol=0)


class TestAllRanks:
    """Two ranks that know of each other's targets."""

    BATCHES = (batch_of([5, 1, 3], [2, 1]), batch_of([0, 6, 6]))

    def draws(self, seeds: tuple[int, int] = (3, 3)) -> list[Candidates]:
        targets = torch.cat([targets_of(batch) for batch in self.BATCHES])
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pairs = zip(self.BATCHES, generators, strict=True)
        return [draw_candidates(batch, COUNTS, 2, g, targets)[0] for batch, g in pairs]

    def test_have_the_same_negatives_with_the_same_log_q(self):
        mine, other = (
            {i: q for i, q in zip(c.item_indexes.tolist(), c.log_q.tolist(), strict=True) if q < 9}
            for c in self.draws()
        )
        assert mine == other
        assert mine.keys() >= {1, 3, 6}

    def test_log_q_counts_the_targets_of_all(self):
        first, _ = self.draws()
        missing = (1 - 1 / 20) ** 5 * (7 / 8) ** 2  # item 1, five targets, two draws of eight
        row = first.item_indexes.tolist().index(1)
        assert first.log_q[row].item() == pytest.approx(math.log(1 - missing), rel=1e-5)

    def test_encode_the_items_of_their_own_histories(self):
        first, second = self.draws()
        assert {5, 2} <= set(first.item_indexes.tolist())
        assert 0 in second.item_indexes.tolist()


class TestDrawUniform:
    def test_all_items_come_equally_often(self):
        drawn = draw_uniform(whole_catalogue(5), 2_000, 5, torch.Generator().manual_seed(0))
        assert drawn.shape == (2_000, 5)
        assert np.bincount(drawn.flatten()) / 2_000 == pytest.approx(np.ones(5), abs=0.1)

    def test_of_a_sample_no_target_comes_more_often_for_being_one(self):
        """Item 6 is each target; among uniform draws it is one of eight."""
        counts = np.zeros(8)
        generator = torch.Generator().manual_seed(0)
        for _ in range(300):
            candidates, _ = draw_candidates(batch_of([0, 6, 6]), COUNTS, 4, generator)
            drawn = draw_uniform(candidates, 10, 4, generator)
            counts += np.bincount(candidates.item_indexes[drawn].flatten(), minlength=8)
        assert counts / counts.sum() == pytest.approx(np.full(8, 1 / 8), abs=0.04)


def test_whole_catalogue_needs_no_renumbering():
    candidates = whole_catalogue(5)
    assert candidates.item_indexes.tolist() == [0, 1, 2, 3, 4]
    assert candidates.log_q is None

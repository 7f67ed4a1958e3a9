"""Heads: what they predict by hand, what they must not touch, and that they can learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from recsys.data.collate import collate_windows
from recsys.models.heads import (
    NUM_NEGATIVES,
    PROBABILITY,
    RATING,
    Heads,
    HeadSize,
    Predicted,
    ValueFacts,
    fit_calibration,
    heads_loss,
    labelled,
    names_of_heads,
)
from recsys.schema import NO_TARGET, Batch, History

SIZE = HeadSize(embedding_size=8, num_parts=2, num_items=6)
FACTS = ValueFacts(3.0, 2.0, torch.tensor([0.5, -0.5, 0.0, 0.25, 0.0, 0.0]))
NAN = float("nan")
ITEMS = torch.arange(6)


def window(items: list[int], values: list[float]) -> History:
    return replace(History.of_items(items), values=np.array(values, dtype=np.float32))


def made_heads(*names: str, random: bool = True) -> Heads:
    torch.manual_seed(0)
    heads = Heads(names, SIZE)
    if heads.rating is not None:
        heads.rating.set_facts(FACTS)
    if heads.probability is not None:
        heads.probability.item_counts.copy_(torch.tensor([9, 4, 0, 1, 1, 5]))
    for parameter in heads.parameters() if random else []:
        torch.nn.init.normal_(parameter, std=0.3)
    return heads


def vectors_of(batch: Batch, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = batch.targets[batch.targets != NO_TARGET]
    users = normalize(torch.randn(len(targets), 8, generator=generator), dim=-1)
    items = normalize(torch.randn(6, 8, generator=generator), dim=-1)
    return users.requires_grad_(), items.requires_grad_(), targets


def no_negatives(batch: Batch) -> torch.Tensor:
    return torch.zeros(int((batch.targets != NO_TARGET).sum()), NUM_NEGATIVES, dtype=torch.int64)


BATCH = collate_windows([window([0, 1, 2, 3], [5, 1, NAN, 4]), window([4, 5], [NAN, 2])])


class TestRatingHead:
    def test_begins_as_the_mean_with_the_offsets_of_item_and_user(self):
        head = made_heads(RATING, random=False).rating
        vectors = vectors_of(BATCH)
        offsets = head.user_offsets(BATCH, ITEMS)
        # (5 - 3) / 2 - .5 = .5 and (1 - 3) / 2 + .5 = -.5, each over 10 events more.
        expected = torch.tensor([[0.5 / 11, 0.0, 0.0], [0.0, 0.0, 0.0]])
        torch.testing.assert_close(offsets, expected)
        found = head(vectors[0][:1], vectors[1][1:2], torch.tensor([1]), offsets[0, :1])
        assert found.item() == pytest.approx(3 + 2 * (-0.5 + 0.5 / 11), rel=1e-6)

    def test_a_user_is_known_by_the_values_up_to_the_position_alone(self):
        head = made_heads(RATING).rating
        before = head.user_offsets(BATCH, ITEMS)
        later = replace(BATCH, values=BATCH.values.clone())
        later.values[0, 2] = 100.0
        after = head.user_offsets(later, ITEMS)
        assert torch.equal(after[0, :2], before[0, :2])
        assert after[0, 2] > before[0, 2] + 1

    def test_an_unknown_value_is_no_target(self):
        heads = made_heads(RATING)
        predicted = heads(vectors_of(BATCH), ITEMS, BATCH, no_negatives(BATCH))
        assert len(predicted.errors_P) == 3  # of the four targets
        loss = heads_loss(predicted, 1.0, 0.0)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in heads.parameters())

    def test_errors_are_in_standard_deviations(self):
        heads = made_heads(RATING, random=False)
        errors = heads(vectors_of(BATCH), ITEMS, BATCH, no_negatives(BATCH)).errors_P
        expected = [-0.5 + 0.5 / 11 - (1 - 3) / 2, 0.25 - (4 - 3) / 2, 0.0 - (2 - 3) / 2]
        assert errors.tolist() == pytest.approx(expected, rel=1e-5)

    def test_learns_what_the_baseline_cannot_know(self):
        torch.manual_seed(1)
        heads = made_heads(RATING, random=False)
        users = normalize(torch.randn(400, 8), dim=-1)
        items = normalize(torch.randn(6, 8), dim=-1)
        rows = torch.randint(6, (400,))
        truth = 3 + 4 * (users * items[rows]).sum(-1)
        optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-2)
        errors = []
        for _ in range(150):
            found = heads.rating(users, items[rows], torch.full((400,), -1), torch.zeros(400))
            errors.append((found - truth).square().mean())
            optimizer.zero_grad()
            errors[-1].backward()
            optimizer.step()
        assert errors[-1] < 0.2 * errors[0]


class TestProbabilityHead:
    def test_begins_with_the_prior(self):
        head = made_heads(PROBABILITY, random=False).probability
        users, items, _ = vectors_of(BATCH)
        found = head.probabilities(head(users[:1], items[:1], torch.tensor([0])))
        assert found.item() == pytest.approx(1 / (1 + NUM_NEGATIVES))

    def test_log_popularity_by_hand(self):
        head = made_heads(PROBABILITY).probability
        found = head.log_popularity(torch.tensor([0, 2, -1, 99]))
        one, none = math.log(10 / 26 * 6), math.log(1 / 26 * 6)
        assert found.tolist() == pytest.approx([one, none, none, none], rel=1e-5)

    def test_a_negative_that_is_the_target_does_not_count(self):
        heads = made_heads(PROBABILITY)
        vectors = vectors_of(BATCH)
        negatives = torch.tensor([[1, 0, 2, 1], [0, 0, 0, 0], [3, 3, 3, 3], [4, 3, 2, 1]])
        predicted = heads(vectors, ITEMS, BATCH, negatives)  # targets are 1, 2, 3, 5
        logits, labels = labelled(predicted)
        assert predicted.counts_PL.sum(1).tolist() == [3, 5, 1, 5]
        assert labels.sum() == 4
        assert len(logits) == 14

    def test_what_the_parts_weigh_in_the_score_does_not_matter(self):
        head = made_heads(PROBABILITY).probability
        users, items, _ = vectors_of(BATCH)
        weights = torch.tensor([0.1] * 4 + [0.9] * 4)
        rows = torch.zeros(4, dtype=torch.int64)
        torch.testing.assert_close(
            head(users * weights, items[rows] * weights, rows), head(users, items[rows], rows)
        )


class TestHeads:
    def test_no_gradient_reaches_the_vectors(self):
        heads = made_heads(RATING, PROBABILITY)
        vectors = vectors_of(BATCH)
        heads_loss(heads(vectors, ITEMS, BATCH, no_negatives(BATCH)), 1.0, 1.0).backward()
        assert vectors[0].grad is None
        assert vectors[1].grad is None
        assert all(p.grad.abs().sum() > 0 for p in heads.parameters())

    def test_candidates_in_another_order_change_nothing(self):
        heads, order = made_heads(RATING, PROBABILITY), torch.tensor([3, 1, 0, 5, 4, 2])
        place = order.argsort()
        users, items, targets = vectors_of(BATCH)
        negatives = torch.randint(6, (4, NUM_NEGATIVES))
        plain = heads((users, items, targets), ITEMS, BATCH, negatives)
        moved = replace(BATCH, item_indexes=place[BATCH.item_indexes])
        other = heads((users, items[order], place[targets]), order, moved, place[negatives])
        torch.testing.assert_close(other.errors_P, plain.errors_P)
        torch.testing.assert_close(other.logits_PL, plain.logits_PL)

    def test_a_batch_without_targets_gives_no_loss_and_a_zero_gradient(self):
        heads = made_heads(RATING, PROBABILITY)
        empty = replace(BATCH, targets=torch.full_like(BATCH.targets, NO_TARGET))
        loss = heads_loss(heads(vectors_of(empty), ITEMS, empty, no_negatives(empty)), 1.0, 1.0)
        loss.backward()
        assert loss.item() == 0
        assert all((p.grad == 0).all() for p in heads.parameters())

    def test_the_loss_by_hand(self):
        predicted = Predicted(
            torch.tensor([1.0, -3.0]), torch.tensor([[0.0, 0.0]]), torch.tensor([[True, True]])
        )
        loss = heads_loss(predicted, 0.5, 2.0)
        assert loss.item() == pytest.approx(0.5 * (1 + 9) / 2 + 2 * math.log(2))

    @pytest.mark.parametrize("names", [(), (RATING,), (PROBABILITY,), (PROBABILITY, RATING)])
    def test_are_known_by_the_names_of_their_tensors(self, names):
        tensors = {f"heads.{name}": 0 for name in Heads(names, SIZE).state_dict()}
        assert names_of_heads(["user_encoder.norm.weight", *tensors]) == sorted(names)


class TestCalibration:
    def test_is_the_logistic_regression_of_labels_on_logits(self):
        random = np.random.default_rng(0)
        logits = random.normal(size=4_000)
        labels = random.random(4_000) < 1 / (1 + np.exp(-(2.0 * logits - 1.0)))
        peer = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
        found = fit_calibration(torch.from_numpy(logits), torch.from_numpy(labels).double())
        expected = [peer.coef_.item(), peer.intercept_.item()]
        assert found.tolist() == pytest.approx(expected, abs=0.01)
        assert found.tolist() == pytest.approx([2.0, -1.0], abs=0.2)

    def test_of_separable_labels_is_finite(self):
        logits = torch.tensor([-2.0, -1.0, 1.0, 2.0])
        assert fit_calibration(logits, (logits > 0).float()).isfinite().all()

    def test_works_where_gradients_are_off(self):
        with torch.no_grad():
            found = fit_calibration(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
        assert found[1].item() == pytest.approx(
            math.log((2 / 3 + 2 / 4) / (3 - 2 / 3 - 2 / 4)), abs=1e-4
        )

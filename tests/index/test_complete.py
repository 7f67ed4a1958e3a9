"""Filling in attributes: the vote, the threshold, and that nothing given is changed."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.artifact import Artifact, open_artifact
from recsys.config import IndexConfig, ModelConfig
from recsys.index.complete import (
    ATTRIBUTES_FILE,
    MIN_LABELLED,
    complete,
    complete_items,
    find_threshold,
    lower_bound,
    make_plan,
    masked_tenth,
    measure,
    nearest,
    vote,
)


def test_the_nearest_are_found_by_angle_whatever_the_lengths():
    labelled = torch.tensor([[1.0, 0.0], [0.0, 5.0], [3.0, 3.0], [-1.0, 0.0]])
    similarities, rows = nearest(torch.tensor([[0.1, 0.0]]), labelled, 3)
    assert rows.tolist() == [[0, 2, 1]]
    assert similarities[0].tolist() == pytest.approx([1.0, math.sqrt(0.5), 0.0])


def test_there_are_no_more_neighbours_than_items():
    assert nearest(torch.ones(2, 3), torch.ones(4, 3), 10)[1].shape == (2, 4)


@pytest.mark.parametrize("values", [1, 7, 1 << 26])
def test_chunks_change_nothing_and_an_item_is_not_its_own_neighbour(monkeypatch, values):
    monkeypatch.setattr("recsys.index.complete.CHUNK_VALUES", values)
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    similarities, rows = nearest(vectors, vectors, 3, torch.arange(9))
    expected = torch.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    expected.fill_diagonal_(-2)
    assert torch.equal(rows, expected.topk(3, dim=1).indices)
    assert torch.allclose(similarities, expected.topk(3, dim=1).values)


def test_the_larger_sum_of_similarities_wins():
    similarities = torch.tensor([[0.9, 0.5, 0.6], [0.8, 0.3, 0.2]])
    labels = torch.tensor([[7, 8, 8], [7, 8, 8]])
    answers, confidences = vote(similarities, labels)
    assert answers.tolist() == [8, 7]
    assert confidences.tolist() == pytest.approx([1.1 / 2.0 * 0.6, 0.8 / 1.3 * 0.8])


def test_far_neighbours_that_agree_are_not_sure():
    _, confidences = vote(torch.tensor([[0.2, 0.2], [1.0, 1.0]]), torch.tensor([[3, 3], [3, 3]]))
    assert confidences.tolist() == pytest.approx([0.2, 1.0])


def test_of_equal_sums_the_nearer_wins_and_opposite_items_have_no_vote():
    answers, confidences = vote(
        torch.tensor([[0.5, 0.5], [0.4, -0.9], [-0.1, -torch.inf]]),
        torch.tensor([[2, 1], [1, 2], [1, 2]]),
    )
    assert answers.tolist()[:2] == [2, 1]
    assert confidences.tolist() == pytest.approx([0.25, 0.4, 0.0])


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(
        st.lists(st.tuples(st.floats(-1, 1, width=32), st.integers(0, 3)), min_size=4, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_the_vote_is_that_of_one_query_at_a_time(rows):
    similarities = torch.tensor([[s for s, _ in row] for row in rows])
    labels = torch.tensor([[label for _, label in row] for row in rows])
    answers, confidences = vote(similarities, labels)
    for row, answer, confidence in zip(rows, answers.tolist(), confidences.tolist(), strict=True):
        sums: dict[int, float] = {}
        for similarity, label in row:
            sums[label] = sums.get(label, 0.0) + max(similarity, 0.0)
        assert sums[answer] == pytest.approx(max(sums.values()), abs=1e-5)
        closest = max(0.0, *(s for s, label in row if label == answer))
        share = sums[answer] / sum(sums.values()) if sum(sums.values()) > 1e-6 else 0.0
        assert confidence == pytest.approx(share * closest, abs=1e-4)


def test_the_lower_bound_is_wilsons():
    # 90 of 100 at z = 1.645, by hand: (0.9 + 0.01353 - 1.645 * 0.031107) / 1.02706.
    bounds = lower_bound(torch.tensor([90, 25, 0]), torch.tensor([100, 25, 5]))
    assert bounds.tolist() == pytest.approx([0.8396, 25 / (25 + 1.645**2), 0.0], abs=2e-4)


def test_the_threshold_is_the_lowest_that_is_precise_enough():
    confidences = torch.linspace(1.0, 0.0, 200)
    right = torch.arange(200) < 100
    threshold = find_threshold(confidences, right, 0.9)
    assert threshold is not None
    kept = int((confidences >= threshold).sum())
    assert lower_bound(torch.tensor([100]), torch.tensor([kept])) >= 0.9
    assert lower_bound(torch.tensor([100]), torch.tensor([kept + 1])) < 0.9


def test_a_threshold_takes_all_equal_confidences_or_none():
    confidences = torch.tensor([0.9] * 50 + [0.5] * 100)
    right = torch.tensor([True] * 50 + [True] * 50 + [False] * 50)
    assert find_threshold(confidences, right, 0.9) == pytest.approx(0.9)
    assert find_threshold(confidences, right, 0.6) == pytest.approx(0.5)
    mixed = torch.tensor([0.9] * 100)
    assert find_threshold(mixed, torch.arange(100) < 60, 0.9) is None


def test_a_few_lucky_answers_are_not_enough():
    assert find_threshold(torch.ones(24), torch.ones(24, dtype=torch.bool), 0.9) is None
    assert find_threshold(torch.ones(25), torch.ones(25, dtype=torch.bool), 0.9) == 1.0
    assert find_threshold(torch.ones(0), torch.ones(0, dtype=torch.bool), 0.9) is None


def test_what_was_masked_is_measured_above_the_threshold_and_in_all():
    answers, labels = torch.tensor([1, 1, 2, 2]), torch.tensor([1, 0, 2, 0])
    masked = measure(answers, torch.tensor([0.9, 0.8, 0.8, 0.1]), labels, 0.8)
    assert masked.accuracy == 0.5
    assert masked.precision == pytest.approx(Fraction(2, 3))
    assert masked.coverage == 0.75
    nothing = measure(answers, torch.ones(4), labels, None)
    assert (nothing.accuracy, nothing.precision, nothing.coverage) == (0.5, None, 0.0)


def test_the_tenth_and_the_rest_are_all_items_once():
    masked, rest = masked_tenth(57)
    assert len(masked) == 5
    assert sorted([*masked.tolist(), *rest.tolist()]) == list(range(57))


NUM_CLUSTERS, CLUSTER = 4, 60


def clusters(seed: int = 0) -> tuple[torch.Tensor, list[str]]:
    """Vectors around four directions, and the names of these."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(NUM_CLUSTERS, 8).repeat_interleave(CLUSTER, 0)
    noise = 0.05 * torch.randn(centres.shape, generator=generator)
    return centres + noise, [f"c{n}" for n in range(NUM_CLUSTERS) for _ in range(CLUSTER)]


def shop(categories: list[str | None], **columns) -> pa.Table:
    names = [f"i{n}" for n in range(len(categories))]
    kinds = pa.array(categories, pa.large_string())
    return pa.table(
        {"item_id": names, "title": ["a title"] * len(names), "category": kinds} | columns
    )


def test_missing_values_are_filled_from_their_like_and_given_ones_stay():
    vectors, truth = clusters()
    hidden = range(0, len(truth), 7)
    given = [None if n in hidden else name for n, name in enumerate(truth)]
    given[1] = "of its own"
    table, plans = complete_items(shop(given), vectors, 0.9)
    plan = plans["category"]
    assert plan is not None
    assert plan.masked.precision == 1.0
    for n, row in enumerate(table.to_pylist()):
        if given[n]:
            expected = (given[n], "given", None)
            assert (row["category"], row["category_source"], row["category_confidence"]) == expected
        else:
            assert (row["category"], row["category_source"]) == (truth[n], "filled")
            assert plan.threshold <= row["category_confidence"] <= 1


def test_where_text_tells_nothing_nothing_is_filled():
    vectors, truth = clusters()
    shuffled = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(1))
    given = [None if n % 7 == 0 else name for n, name in enumerate(truth)]
    table, plans = complete_items(shop(given), vectors[shuffled], 0.9)
    assert table["category"].to_pylist() == given
    assert set(table["category_source"].to_pylist()) == {"given", None}
    assert plans["category"].threshold is None  # pyright: ignore
    assert plans["category"].masked.accuracy < 0.6  # pyright: ignore


def test_an_item_without_text_is_neither_filled_nor_asked():
    vectors, truth = clusters()
    given = [None if n in (0, 7) else name for n, name in enumerate(truth)]
    titles = ["a title"] * len(truth)
    titles[7] = None
    table, _ = complete_items(shop(given, title=titles), vectors, 0.9)
    assert table["category_source"].to_pylist()[:8:7] == ["filled", None]


def test_a_shop_without_an_attribute_or_with_few_values_gets_no_plan():
    vectors, truth = clusters()
    given = [name if n < MIN_LABELLED - 1 else None for n, name in enumerate(truth)]
    table, plans = complete_items(shop(given), vectors, 0.0)
    assert plans == {"category": None, "brand": None}
    assert table["category"].to_pylist() == given
    assert table["brand"].to_pylist() == [None] * len(truth)
    empty, _ = complete_items(shop([]), torch.empty(0, 8), 0.9)
    assert len(empty) == 0


def test_whitening_is_chosen_where_it_fills_more():
    vectors, truth = clusters()
    labels = torch.tensor([int(name[1:]) for name in truth])
    blind = torch.ones_like(vectors)
    for near, whiten in (
        ({False: blind, True: vectors}, True),
        ({False: vectors, True: blind}, False),
    ):
        plan = make_plan(near, labels, 0.9)
        assert plan is not None
        assert plan.whiten is whiten
        assert plan.masked.coverage > 0.9


def test_the_attributes_of_a_dataset_are_an_artifact(
    toy_dataset: Artifact, tiny_backbone: str, tmp_path
):
    model = ModelConfig(backbone=tiny_backbone)
    made = complete(toy_dataset, model, IndexConfig(), 0.0, str(tmp_path / "attributes"))
    found = open_artifact(tmp_path / "attributes", "attributes")
    assert found.manifest.parents == {"dataset": toy_dataset.digest}
    items, table = toy_dataset.read_table("items.parquet"), found.read_table(ATTRIBUTES_FILE)
    assert table["item_id"].equals(items["item_id"])
    assert table["category"].to_pylist() == items["category"].to_pylist()
    brands = items["brand"].to_pylist()
    filled = [s for b, s in zip(brands, table["brand_source"].to_pylist(), strict=True) if not b]
    assert filled
    assert set(filled) == {"filled"}  # any precision will do
    facts = found.manifest.facts["brand"]
    assert facts["filled"] == len(filled)
    assert facts["given"] + facts["filled"] + facts["missing"] == len(items)
    assert facts["plan"]["masked"]["num_values"] == (len(items) - len(filled)) // 10
    again = complete(toy_dataset, model, IndexConfig(), 0.0, str(tmp_path / "again"))
    assert json.loads(made.manifest.model_dump_json())["facts"] == again.manifest.facts

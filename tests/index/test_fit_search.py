"""Joining two rankings by hand, and what is learned where there is something to learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys.index.fit_search import fit_fusion
from recsys.index.fusion import Fusion, fuse, load_fusion, save_fusion
from recsys.index.lexical import LexicalIndex
from recsys.index.queries import JudgedQuery

NUM_ITEMS, WIDTH = 60, 16


def test_a_fused_score_is_the_weighted_sum_of_reciprocal_ranks():
    items, scores = fuse(torch.tensor([7, 3]), torch.tensor([3, 9]), 0.25)
    wanted = {3: 0.75 / 62 + 0.25 / 61, 7: 0.75 / 61, 9: 0.25 / 62}
    found = dict(zip(items.tolist(), scores.tolist(), strict=True))
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("weight", "kept"), [(0.0, [3, 7]), (1.0, [3, 9]), (0.5, [3, 7, 9])])
def test_a_ranking_that_does_not_count_adds_no_items(weight, kept):
    items, scores = fuse(torch.tensor([7, 3]), torch.tensor([3, 9]), weight)
    assert items.tolist() == kept
    assert bool((scores > 0).all())


def test_two_empty_rankings_are_an_empty_one():
    nothing = torch.empty(0, dtype=torch.int64)
    assert [len(part) for part in fuse(nothing, nothing, 0.5)] == [0, 0]


@pytest.mark.parametrize("adapter", [None, torch.randn(3, 3)])
def test_a_fusion_is_loaded_as_it_was_saved(adapter):
    fusion = load_fusion(save_fusion(Fusion(0.3, adapter)))
    assert fusion.dense_weight == 0.3
    query = F.normalize(torch.randn(2, 3), dim=1)
    assert torch.equal(fusion.adapt(query), Fusion(0.3, adapter).adapt(query))


def make_queries(count: int, seed: int) -> tuple[list[JudgedQuery], torch.Tensor]:
    """Queries by number, each of which fits one item."""
    items = np.random.default_rng(seed).integers(NUM_ITEMS, size=count)
    queries = [JudgedQuery(f"w{i}", np.array([i]), np.ones(1)) for i in items.tolist()]
    return queries, torch.from_numpy(items)


def test_the_adapter_learns_a_turn_that_all_queries_have_in_common():
    torch.manual_seed(0)
    items = F.normalize(torch.randn(NUM_ITEMS, WIDTH), dim=1)
    turned = F.normalize(items + items @ (0.4 * torch.randn(WIDTH, WIDTH)), dim=1)
    silent = LexicalIndex.build([[] for _ in range(NUM_ITEMS)])
    train, train_items = make_queries(2_000, 1)
    valid, valid_items = make_queries(40, 2)
    sets = (train, turned[train_items]), (valid, turned[valid_items])
    plain = fit_fusion(*sets, items, silent, epochs=0)
    learned = fit_fusion(*sets, items, silent, epochs=20)
    assert (plain.epochs, plain.fusion.adapter) == (0, None)
    assert learned.epochs > 10
    assert learned.valid_ndcg > plain.valid_ndcg + 0.05


@pytest.mark.parametrize("tells", ["words", "meaning"])
def test_the_ranking_that_tells_gets_the_weight(tells):
    torch.manual_seed(0)
    items = F.normalize(torch.randn(NUM_ITEMS, WIDTH), dim=1)
    noise = F.normalize(torch.randn(NUM_ITEMS, WIDTH), dim=1)
    shuffled = torch.randperm(NUM_ITEMS).tolist()
    words = [[f"w{i}"] for i in (range(NUM_ITEMS) if tells == "words" else shuffled)]
    queries, numbers = make_queries(40, 3)
    vectors = (noise if tells == "words" else items)[numbers]
    found = fit_fusion(([], vectors[:0]), (queries, vectors), items, LexicalIndex.build(words), 0)
    assert found.valid_ndcg == 1.0
    assert (found.fusion.dense_weight > 0.5) == (tells == "meaning")


def test_without_validation_queries_both_rankings_count_the_same():
    empty = [], torch.empty(0, WIDTH)
    index = LexicalIndex.build([["a"]])
    assert fit_fusion(empty, empty, torch.ones(1, WIDTH), index, 5).fusion == Fusion()

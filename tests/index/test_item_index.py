import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.index.item_index import ExactIndex, ItemIndex, load_index, save_index
from tests.contracts import ItemIndexContract


class TestExactIndex(ItemIndexContract):
    def make_index(self, vectors_ND: torch.Tensor) -> ItemIndex:
        return ExactIndex(vectors_ND)

    def stored_and_read(self, index: ItemIndex) -> ItemIndex:
        return load_index(save_index(index))


sizes = {
    "num_items": st.integers(1, 60),
    "num_queries": st.integers(1, 5),
    "top_k": st.integers(1, 70),
    "seed": st.integers(0, 10_000),
}


def random_exclusions(random: np.random.Generator, num_queries: int, num_items: int) -> list:
    return [
        sorted(set(random.integers(0, num_items, random.integers(0, 6)).tolist()))
        for _ in range(num_queries)
    ]


def scores_by_hand(queries: np.ndarray, vectors: np.ndarray, excluded: list) -> np.ndarray:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    for row, items in zip(scores, excluded, strict=True):
        row[items] = -np.inf
    return scores


@settings(max_examples=60, deadline=None)
@given(**sizes)
def test_agrees_with_numpy_where_many_scores_are_equal(num_items, num_queries, top_k, seed):
    """Small whole numbers: every score is exact, and many are equal."""
    random = np.random.default_rng(seed)
    vectors = random.integers(-1, 2, (num_items, 3)).astype(np.float32)
    queries = random.integers(-1, 2, (num_queries, 3)).astype(np.float32)
    excluded = random_exclusions(random, num_queries, num_items)
    expected = scores_by_hand(queries, vectors, excluded)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :top_k]
    scores, items = ExactIndex(torch.from_numpy(vectors)).search(
        torch.from_numpy(queries), top_k, excluded
    )
    assert np.array_equal(scores.numpy(), np.take_along_axis(expected, order, 1))
    real = scores.numpy() > -np.inf
    assert np.array_equal(items.numpy()[real], order[real])


@settings(max_examples=60, deadline=None)
@given(**sizes)
def test_agrees_with_numpy_on_random_vectors(num_items, num_queries, top_k, seed):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((num_items, 8)).astype(np.float32)
    queries = random.standard_normal((num_queries, 8)).astype(np.float32)
    excluded = random_exclusions(random, num_queries, num_items)
    expected = scores_by_hand(queries, vectors, excluded)
    scores, items = ExactIndex(torch.from_numpy(vectors)).search(
        torch.from_numpy(queries), top_k, excluded
    )
    # Float32 may swap scores that are equal to five digits, so scores are compared, not ids.
    best = -np.sort(-expected, axis=1)[:, :top_k]
    np.testing.assert_allclose(scores.numpy(), best, atol=1e-5)
    own = np.take_along_axis(expected, items.numpy(), 1)
    np.testing.assert_allclose(scores.numpy(), own, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in items.tolist())


def test_vectors_of_a_view_are_searched_and_saved_too():
    vectors = torch.arange(12.0).reshape(3, 4).T
    index = ExactIndex(vectors)
    assert torch.equal(load_index(save_index(index)).vectors, vectors)
    assert index.search(torch.ones(1, 3), 4, [[]])[1].tolist() == [[3, 2, 1, 0]]


@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_of_equal_scores_the_one_earlier_in_the_given_order_comes_first(top_k: int) -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    index = ExactIndex(vectors, torch.tensor([3, 1, 0, 2]))
    for found in (index, load_index(save_index(index))):
        _, items = found.search(vectors[:1], top_k, [[]])
        assert items.tolist() == [[3, 0, 2, 1][:top_k]]


def test_a_removed_item_is_never_found_and_keeps_its_vector() -> None:
    vectors = torch.eye(4)
    index = ExactIndex(vectors, removed_N=torch.tensor([False, True, False, False]))
    for found in (index, load_index(save_index(index))):
        scores, items = found.search(vectors[1:2], 4, [[]])
        left = items[0][scores[0] > -torch.inf].tolist()
        assert left == [0, 2, 3]
        assert torch.equal(found.vectors, vectors)

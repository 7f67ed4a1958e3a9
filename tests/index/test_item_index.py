import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.index.item_index import (
    ExactIndex,
    Int8Vectors,
    ItemIndex,
    Precision,
    QuantisedIndex,
    load_index,
    make_index,
    save_index,
)
from tests.contracts import ItemIndexContract


class TestExactIndex(ItemIndexContract):
    def make_index(self, vectors_ND: torch.Tensor) -> ItemIndex:
        return ExactIndex(vectors_ND)

    def stored_and_read(self, index: ItemIndex) -> ItemIndex:
        return load_index(save_index(index))


class TestBf16Index(TestExactIndex):
    def make_index(self, vectors_ND: torch.Tensor) -> ItemIndex:
        return make_index(vectors_ND, "bf16")


class TestInt8Index(TestExactIndex):
    def make_index(self, vectors_ND: torch.Tensor) -> ItemIndex:
        return make_index(vectors_ND, "int8")


class TestInt8IndexWhereTheCpuHasNoInt8(TestInt8Index):
    @pytest.fixture(autouse=True)
    def _no_vnni(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)


QUANTISED: list[Precision] = ["bf16", "int8"]
PRECISIONS: list[Precision] = ["fp32", *QUANTISED]

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


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_of_equal_scores_the_one_earlier_in_the_given_order_comes_first(
    top_k: int, precision: Precision
) -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    index = make_index(vectors, precision, torch.tensor([3, 1, 0, 2]))
    for found in (index, load_index(save_index(index))):
        _, items = found.search(vectors[:1], top_k, [[]])
        assert items.tolist() == [[3, 0, 2, 1][:top_k]]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_removed_item_is_never_found_and_keeps_its_vector(precision: Precision) -> None:
    vectors = torch.eye(4)
    index = make_index(vectors, precision, removed_N=torch.tensor([False, True, False, False]))
    for found in (index, load_index(save_index(index))):
        scores, items = found.search(vectors[1:2], 4, [[]])
        left = items[0][scores[0] > -torch.inf].tolist()
        assert left == [0, 2, 3]
        assert torch.equal(found.vectors, vectors)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("left", [0, 1, 2, 30])
def test_queries_with_and_without_a_filter_share_a_search(left: int, precision: Precision) -> None:
    """Of 60 items up to 3 are picked out; the filter holds the more of them the greater `left`."""
    numbers = torch.randn(60, 8, generator=torch.Generator().manual_seed(5))
    vectors = torch.nn.functional.normalize(numbers)
    index = make_index(vectors, precision, removed_N=torch.arange(60) == 59)
    mask = torch.arange(60) >= 60 - left
    scores, items = index.search(vectors[:3], 5, [[], [], [58]], [mask, None, mask])
    found = [row[score > -torch.inf].tolist() for row, score in zip(items, scores, strict=True)]
    assert scores.shape == (3, 5)
    assert len(found[0]) == min(5, max(0, left - 1))
    assert len(found[2]) == min(5, max(0, left - 2))
    assert mask[found[0] + found[2]].all()
    assert not {58, 59} & set(found[2])
    assert found[1][0] == 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equal_items_in_plenty_keep_their_order_through_both_passes(precision: Precision) -> None:
    """More equal items than the first pass keeps candidates."""
    vectors = torch.randn(1, 8, generator=torch.Generator().manual_seed(0)).repeat(40, 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    index = make_index(vectors, precision, order)
    scores, items = index.search(vectors[:2], 3, [[], [int(order[0])]])
    assert items.tolist() == [order[:3].tolist(), order[1:4].tolist()]
    assert (scores > 0).all()


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=40, deadline=None)
@given(**sizes)
def test_scores_are_exact_for_the_stored_vectors(precision, num_items, num_queries, top_k, seed):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((num_items, 8)).astype(np.float32)
    queries = random.standard_normal((num_queries, 8)).astype(np.float32)
    excluded = random_exclusions(random, num_queries, num_items)
    index = make_index(torch.from_numpy(vectors), precision)
    scores, items = index.search(torch.from_numpy(queries), top_k, excluded)
    assert scores.shape == items.shape == (num_queries, min(top_k, num_items))
    by_hand = scores_by_hand(queries, index.vectors.numpy(), excluded)
    np.testing.assert_allclose(scores, np.take_along_axis(by_hand, items.numpy(), 1), atol=1e-5)
    assert all(len(set(row)) == len(row) for row in items.tolist())


@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.98), ("int8", 0.95)])
def test_a_quantised_index_finds_what_an_exact_one_does(precision, least):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(3_000, 64, generator=generator))
    queries = torch.nn.functional.normalize(torch.randn(20, 64, generator=generator))
    _, expected = ExactIndex(vectors).search(queries, 50, [[]] * 20)
    _, found = make_index(vectors, precision).search(queries, 50, [[]] * 20)
    pairs = zip(expected.tolist(), found.tolist(), strict=True)
    assert np.mean([len(set(one) & set(other)) / 50 for one, other in pairs]) > least


def test_the_second_pass_mends_what_rounding_the_query_did(monkeypatch):
    """The best of 200 vectors that differ by less than an int8 query can tell."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    generator = torch.Generator().manual_seed(3)
    near = torch.randint(-120, 120, (16,), generator=generator)
    vectors = (near + torch.randint(-2, 3, (200, 16), generator=generator)) / 127
    vectors[:, 0] = 1.0  # so that the items are stored as they are
    queries = torch.randn(50, 16, generator=generator)
    stored = Int8Vectors.of_floats(vectors)
    best = (queries @ vectors.T).argmax(dim=1)
    first = stored.first_scores(queries)(0, 200).argmax(dim=1)
    _, items = QuantisedIndex(stored).search(queries, 1, [[]] * 50)
    assert (first != best).any()
    assert torch.equal(items[:, 0], best)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_vectors_of_some_items_are_rows_of_all(precision):
    index = make_index(torch.randn(9, 4), precision)
    rows = torch.tensor([[8, 0, 3], [3, 3, 1]])
    assert index.vectors_of(rows).dtype == torch.float32
    assert torch.equal(index.vectors_of(rows), index.vectors[rows])


def test_int8_is_off_by_half_a_step_at_most_and_keeps_vectors_of_zeros():
    vectors = torch.randn(50, 16) * torch.logspace(-6, 3, 50)[:, None]
    vectors[7] = 0
    errors = (make_index(vectors, "int8").vectors - vectors).abs()
    assert (errors <= vectors.abs().amax(dim=1, keepdim=True) / 127 * 0.501).all()


def test_the_stored_sizes_are_a_half_and_a_quarter():
    vectors = torch.randn(1_000, 128)
    other = 9 * 1_000  # order and removed
    size = {p: len(save_index(make_index(vectors, p))) - other for p in PRECISIONS}
    assert size["fp32"] / size["bf16"] == pytest.approx(2, abs=0.02)
    assert size["fp32"] / size["int8"] == pytest.approx(4 * 128 / 132, abs=0.05)

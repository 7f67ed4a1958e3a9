"""An index with changes, against one that is made anew."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recsys.index.changed_index import ChangedIndex, change
from recsys.index.item_index import ExactIndex, ItemIndex, Precision, make_index

SIZE, WIDTH, MORE = 40, 8, 5


def unit(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(number, WIDTH, generator=generator), dim=-1)


VECTORS, CHANGES, QUERIES = unit(SIZE, 0), unit(MORE, 1), unit(6, 2)
CHANGED = torch.tensor([3, 17, SIZE, SIZE + 1, SIZE + 2])
ORDER = torch.randperm(SIZE + 3, generator=torch.Generator().manual_seed(3))
OLD_ORDER = ORDER[ORDER < SIZE]
REMOVED = torch.zeros(SIZE + 3, dtype=torch.bool)
REMOVED[[5, 17, SIZE + 1]] = True
WHOLE = torch.cat([VECTORS, torch.zeros(3, WIDTH)])
WHOLE[CHANGED] = CHANGES
EXCLUDED = [[], [3], [0, 1, SIZE], [SIZE + 2], [], list(range(SIZE + 3))]
MASK = torch.arange(SIZE + 3) % 3 != 0
ALLOWED = [None, MASK, None, MASK, ~MASK, None]


def changed(precision: Precision = "fp32") -> ChangedIndex:
    below = make_index(VECTORS, precision, OLD_ORDER)
    return change(below, SIZE, CHANGED, CHANGES, ORDER, REMOVED)


def answers(index: ItemIndex, top_k: int) -> list[list[tuple[int, float]]]:
    scores_BK, items_BK = index.search(QUERIES, top_k, EXCLUDED, ALLOWED)
    return [
        [(i, round(s, 5)) for i, s in zip(items, scores, strict=True) if s > -torch.inf]
        for items, scores in zip(items_BK.tolist(), scores_BK.tolist(), strict=True)
    ]


@pytest.mark.parametrize("top_k", [1, 4, SIZE + 3, SIZE + 50])
def test_it_finds_what_an_index_made_anew_finds(top_k):
    assert answers(changed(), top_k) == answers(ExactIndex(WHOLE, ORDER, REMOVED), top_k)
    assert changed().search(QUERIES, top_k, EXCLUDED)[0].shape == (6, min(top_k, SIZE + 3))


def test_ties_between_old_and_new_items_follow_the_order():
    one = VECTORS[:1]
    below = ExactIndex(one.repeat(4, 1), torch.tensor([2, 0, 3, 1]))
    order = torch.tensor([2, 4, 0, 3, 5, 1])
    index = change(
        below, 4, torch.tensor([4, 5]), one.repeat(2, 1), order, torch.zeros(6, dtype=torch.bool)
    )
    assert index.search(one, 6, [[]])[1].tolist() == [order.tolist()]


def test_vectors_are_the_new_ones_where_there_are_any():
    assert changed().vectors.equal(WHOLE)
    wanted = torch.tensor([[SIZE + 2, 0], [17, SIZE - 1]])
    assert changed().vectors_of(wanted).equal(WHOLE[wanted])


def test_changes_on_changes_replace_and_add():
    again = torch.tensor([3, SIZE + 3])
    order = torch.cat([ORDER, torch.tensor([SIZE + 3])])
    removed = torch.cat([REMOVED, torch.tensor([False])])
    removed[17] = False
    index = change(changed(), SIZE + 3, again, QUERIES[:2], order, removed)
    whole = torch.cat([WHOLE, torch.zeros(1, WIDTH)])
    whole[again] = QUERIES[:2]
    assert index.vectors.equal(whole)
    expected = ExactIndex(whole, order, removed).search(QUERIES, 9, [[]] * 6)
    found = index.search(QUERIES, 9, [[]] * 6)
    assert found[1].equal(expected[1])
    assert found[0].numpy() == pytest.approx(expected[0].numpy(), abs=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_index_below_may_store_vectors_in_fewer_bits(precision):
    index = changed(precision)
    assert index.search(CHANGES, 1, [[]] * MORE)[1][:, 0].tolist() != []
    new = CHANGED[~REMOVED[CHANGED]]
    found = index.search(WHOLE[new], 1, [[]] * len(new))[1][:, 0]
    assert found.equal(new)


def test_the_index_below_is_left_as_it_was():
    below = ExactIndex(VECTORS, OLD_ORDER)
    before = below.search(QUERIES, 9, [[]] * 6)
    index = change(below, SIZE, CHANGED, CHANGES, ORDER, REMOVED)
    index.search(QUERIES, 9, EXCLUDED, ALLOWED)
    index.vectors_of(CHANGED).fill_(9.0)
    after = below.search(QUERIES, 9, [[]] * 6)
    assert after[1].equal(before[1])
    assert after[0].equal(before[0])
    assert index.vectors.equal(WHOLE)

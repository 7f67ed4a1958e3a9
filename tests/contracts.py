"""What every implementation of a protocol must do, as mixins for its test class."""

from __future__ import annotations

import pytest
import torch

from recsys.index.item_index import ItemIndex

SIDE = 6
NUM_ITEMS = SIDE * SIDE


def _squares_alike(one: int, other: int) -> int:
    """Features that two squares of the board share, 1 .. 4: row, column, colour and being one."""
    (row, column), (other_row, other_column) = divmod(one, SIDE), divmod(other, SIDE)
    same_colour = (row + column) % 2 == (other_row + other_column) % 2
    return 1 + (row == other_row) + (column == other_column) + same_colour


def checkerboard() -> torch.Tensor:
    """(36, 15) vectors of length exactly 1, one a square; scores are exact quarters."""
    vectors = torch.zeros(NUM_ITEMS, 2 * SIDE + 3)
    for square in range(NUM_ITEMS):
        row, column = divmod(square, SIDE)
        features = [row, SIDE + column, 2 * SIDE + (row + column) % 2, 2 * SIDE + 2]
        vectors[square, features] = 0.5
    return vectors


def right_answer(square: int, excluded: frozenset[int] = frozenset()) -> list[tuple[float, int]]:
    """(score, item) of the whole board for a query that is a square: best first, then by index."""
    left = [item for item in range(NUM_ITEMS) if item not in excluded]
    ordered = sorted(left, key=lambda item: (-_squares_alike(square, item), item))
    return [(_squares_alike(square, item) / 4, item) for item in ordered]


class ItemIndexContract:
    """Subclasses say how their index is made and how it is stored and read again."""

    def make_index(self, vectors_ND: torch.Tensor) -> ItemIndex:
        raise NotImplementedError

    def stored_and_read(self, index: ItemIndex) -> ItemIndex:
        raise NotImplementedError

    @pytest.fixture
    def board(self) -> torch.Tensor:
        return checkerboard()

    @pytest.fixture
    def index(self, board: torch.Tensor) -> ItemIndex:
        return self.make_index(board)

    def test_vectors_are_the_items(self, index: ItemIndex, board: torch.Tensor) -> None:
        assert index.vectors.dtype == torch.float32
        assert torch.equal(index.vectors, board)

    def test_every_item_finds_itself_first(self, index: ItemIndex, board: torch.Tensor) -> None:
        scores, items = index.search(board, 1, [[]] * NUM_ITEMS)
        assert items.tolist() == [[item] for item in range(NUM_ITEMS)]
        assert scores.tolist() == [[1.0]] * NUM_ITEMS

    def test_the_whole_board_in_the_right_order(
        self, index: ItemIndex, board: torch.Tensor
    ) -> None:
        scores, items = index.search(board, NUM_ITEMS, [[]] * NUM_ITEMS)
        for square in range(NUM_ITEMS):
            found = list(zip(scores[square].tolist(), items[square].tolist(), strict=True))
            assert found == right_answer(square)

    @pytest.mark.parametrize("top_k", [2, 4, 10, 25])
    def test_a_cut_through_equal_scores_keeps_the_lowest_indexes(
        self, index: ItemIndex, board: torch.Tensor, top_k: int
    ) -> None:
        scores, items = index.search(board, top_k, [[]] * NUM_ITEMS)
        for square in range(NUM_ITEMS):
            found = list(zip(scores[square].tolist(), items[square].tolist(), strict=True))
            assert found == right_answer(square)[:top_k]

    def test_excluded_items_never_come(self, index: ItemIndex, board: torch.Tensor) -> None:
        excluded = [[square, (square + 7) % NUM_ITEMS, 0] for square in range(NUM_ITEMS)]
        left = [NUM_ITEMS - len(set(out)) for out in excluded]
        scores, items = index.search(board, NUM_ITEMS, excluded)
        for square in range(NUM_ITEMS):
            pairs = zip(scores[square].tolist(), items[square].tolist(), strict=True)
            found = [(score, item) for score, item in pairs if score > -torch.inf]
            assert len(found) == left[square]
            assert found == right_answer(square, frozenset(excluded[square]))

    def test_one_querys_exclusions_are_not_anothers(
        self, index: ItemIndex, board: torch.Tensor
    ) -> None:
        _, items = index.search(board[[3, 3]], 1, [[3], []])
        assert items[0, 0] != 3
        assert items[1, 0] == 3

    def test_asking_for_more_than_there_is_gives_all(
        self, index: ItemIndex, board: torch.Tensor
    ) -> None:
        scores, items = index.search(board[:2], NUM_ITEMS + 5, [[], []])
        assert scores.shape == items.shape == (2, NUM_ITEMS)
        assert sorted(items[0].tolist()) == list(range(NUM_ITEMS))

    def test_everything_excluded_scores_minus_infinity(
        self, index: ItemIndex, board: torch.Tensor
    ) -> None:
        scores, items = index.search(board[:2], 5, [list(range(NUM_ITEMS)), []])
        assert scores.shape == items.shape == (2, 5)
        assert (scores[0] == -torch.inf).all()
        assert (scores[1] > 0).all()

    def test_a_batch_answers_as_its_queries_do_alone(
        self, index: ItemIndex, board: torch.Tensor
    ) -> None:
        excluded = [[square, (3 * square) % NUM_ITEMS] for square in range(NUM_ITEMS)]
        scores, items = index.search(board, 7, excluded)
        for square in range(NUM_ITEMS):
            alone = index.search(board[square : square + 1], 7, [excluded[square]])
            assert torch.equal(alone[0][0], scores[square])
            assert torch.equal(alone[1][0], items[square])

    def test_searching_leaves_index_and_queries_as_they_are(
        self, index: ItemIndex, board: torch.Tensor
    ) -> None:
        queries = board[:4].clone()
        first = index.search(queries, 6, [[0], [1], [2], [3]])
        again = index.search(queries, 6, [[0], [1], [2], [3]])
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert torch.equal(queries, board[:4])
        assert torch.equal(index.vectors, board)

    def test_stored_and_read_it_answers_the_same(
        self, index: ItemIndex, board: torch.Tensor
    ) -> None:
        other = self.stored_and_read(index)
        excluded = [[square] for square in range(NUM_ITEMS)]
        before, after = index.search(board, 9, excluded), other.search(board, 9, excluded)
        assert other is not index
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])
        assert torch.equal(other.vectors, index.vectors)

"""What a report shows to look at: the worst mistakes are the worst, the map keeps distances."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recsys import schema
from recsys.engine.catalogue import Catalogue
from recsys.eval import item_map
from recsys.eval.examples import examples, worst_mistakes
from recsys.eval.item_map import make_item_map
from recsys.eval.segments import HeldOut, Labels
from recsys.schema import History

NUM_ITEMS = 40
CATALOGUE = Catalogue(
    pa.table(
        {
            schema.ITEM_ID: [f"i{n:02}" for n in range(NUM_ITEMS)],
            "title": [None if n == 3 else f"茶 {n}" for n in range(NUM_ITEMS)],
            schema.TRAIN_COUNT: np.arange(NUM_ITEMS)[::-1].copy(),
            schema.REMOVED: [False] * NUM_ITEMS,
        }
    )
)


def held_out(lengths: list[int], targets: list[list[int]]) -> HeldOut:
    histories = [History.of_items(np.arange(length) % NUM_ITEMS) for length in lengths]
    return HeldOut(histories, [np.array(t) for t in targets], CATALOGUE.train_counts.numpy())


def rank_in_order(rows: np.ndarray, depth: int) -> np.ndarray:
    return np.tile(np.arange(depth), (len(rows), 1))


class TestMistakes:
    def found(self, lengths: list[int], targets: list[list[int]]) -> list[dict]:
        rows = held_out(lengths, targets)
        ranked = rank_in_order(np.arange(len(lengths)), 5)
        return worst_mistakes(ranked, rows, CATALOGUE, rank_in_order)

    def test_long_histories_whose_target_is_furthest_down_come_first(self):
        found = self.found([30, 25, 40, 19, 22], [[9], [33], [20], [39], [2]])
        # Row 3 is short; row 4 was found in the top 5.
        assert [(m["rank"], m["events"]) for m in found] == [(34, 25), (21, 40), (10, 30)]
        assert found[0]["target"] == ["茶 33"]
        assert found[0]["recommended"] == ["茶 0", "茶 1", "茶 2", "i03", "茶 4"]
        assert found[0]["history"] == [f"茶 {n}" for n in range(20, 25)]

    def test_of_several_targets_the_best_counts(self):
        assert [m["rank"] for m in self.found([30, 30], [[39, 7], [20, 30]])] == [21, 8]

    def test_a_target_that_is_not_ranked_at_all_is_the_worst(self, monkeypatch):
        monkeypatch.setattr("recsys.eval.examples.DEPTH", 20)
        found = self.found([30, 30], [[15], [35]])
        assert [(m["rank"], m["depth"]) for m in found] == [(None, 20), (16, 20)]

    def test_no_mistakes_where_there_are_no_long_histories(self):
        assert self.found([3, 19], [[39], [38]]) == []


def test_examples_come_from_everywhere_and_end_with_short_rankings():
    rows = held_out([2] * 60, [[1]] * 60)
    ranked = np.full((60, 5), -1)
    ranked[:, 0] = np.arange(60) % NUM_ITEMS
    found = examples(ranked, rows, CATALOGUE)
    assert [e["recommended"] for e in found] == [[f"茶 {n % 40}"] for n in range(0, 60, 10)]


class TestMap:
    def vectors(self, angles: np.ndarray, size: int = 8) -> np.ndarray:
        """Points on a half circle in a plane of a larger space, of any length."""
        plane = np.linalg.qr(np.random.default_rng(0).normal(size=(size, 2)))[0]
        radius = np.random.default_rng(1).uniform(1, 9, len(angles))
        return (np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T) * radius[:, None]

    def test_a_plane_is_kept_as_it_is(self):
        angles = np.linspace(0, 3, 30)
        vectors = self.vectors(angles)
        labels = Labels.of(pa.array(["a"] * 30))
        found = make_item_map(lambda items: vectors[items], np.arange(30), labels)
        distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
        np.testing.assert_allclose(distances, 2 * np.sin(np.abs(angles[:, None] - angles) / 2))
        assert round(found.kept_variance, 9) == 1.0

    def test_the_most_frequent_categories_have_names(self):
        names = ["书"] * 9 + list("aabbccddeefg")
        labels = Labels.of(pa.array(names))
        vectors = self.vectors(np.linspace(0, 3, len(names)))
        found = make_item_map(lambda items: vectors[items], np.arange(len(names)), labels)
        assert found.names == ["书", "a", "b", "c", "d", "other"]
        shown = [found.names[number] for number in found.categories]
        assert shown == [name if name in "书abcd" else "other" for name in names]

    def test_a_large_catalogue_is_sampled_the_same_way_each_time(self, monkeypatch):
        monkeypatch.setattr(item_map, "MAX_ITEMS", 10)
        vectors = self.vectors(np.linspace(0, 3, 50))
        labels = Labels.of(pa.array([f"c{n % 3}" for n in range(50)]))
        maps = [
            make_item_map(lambda items: vectors[items], np.arange(50), labels) for _ in range(2)
        ]
        assert len(maps[0].points) == 10
        np.testing.assert_array_equal(maps[0].points, maps[1].points)

    def test_one_item_and_zero_vectors_are_drawn(self):
        labels = Labels.of(pa.array([None, "a"], pa.string()))
        found = make_item_map(lambda items: np.zeros((len(items), 4)), np.arange(2), labels)
        assert found.points.tolist() == [[0, 0], [0, 0]]
        alone = make_item_map(lambda items: np.ones((len(items), 4)), np.arange(1), labels)
        assert alone.points.shape == (1, 2)
        assert alone.names == ["unknown"]

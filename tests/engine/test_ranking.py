"""What a request asks for beside a history: filters, diversity, limits, segments, given items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from recsys.engine.catalogue import Catalogue
from recsys.engine.diversity import choose, pool_size
from recsys.engine.filters import Filter
from recsys.engine.recommender import Event, Query, Recommender
from recsys.index.item_index import ExactIndex, popularity_order
from recsys.index.segment_popularity import SCHEMA, Segments
from recsys.index.transitions import Transitions
from recsys.schema import Answer
from tests.engine.test_recommender import CONFIG, EVENTS, MAX_HISTORY, ids_of, make_model, scores_of

SIZE = 300
IDS = [f"i{number}" for number in range(SIZE)]
COUNTS = [(7 * number) % 31 for number in range(SIZE)]
PRICES = [float(number % 10) for number in range(SIZE)]
RARE = [3, 141, 299]
HISTORY = [Event("i5"), Event("i17"), Event("i120")]
CHEAP, DEAR = Filter("price", maximum=1.0), Filter("price", minimum=8.0)
ONLY_RARE = Filter("category", ("rare",))


def vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(SIZE, CONFIG.embedding_size, generator=generator), dim=-1)


def memory() -> Transitions:
    random = np.random.default_rng(0)
    starts = np.arange(SIZE + 1) * 3
    items = random.integers(0, SIZE, 3 * SIZE).astype(np.int32)
    return Transitions(starts, items, random.random(3 * SIZE).astype(np.float32), 0.5, 0.9)


def segments() -> Segments:
    rows = [
        ("country", "DE", 100, [9, 3, 40], [50, 20, 5]),
        ("country", "中国", 90, [1], [90]),
        ("device", "phone", 40, [141, 9], [30, 10]),
    ]
    names = SCHEMA.names
    return Segments(pa.Table.from_pylist([dict(zip(names, r, strict=True)) for r in rows], SCHEMA))


def catalogue(categories: list[str | None] | None = None) -> Catalogue:
    usual = ["rare" if n in RARE else f"c{n % 4}" for n in range(SIZE)]
    columns = {"category": categories or usual, "price": PRICES, "train_count": COUNTS}
    titles, removed = [f"Item {n}" for n in range(SIZE)], [n == 299 for n in range(SIZE)]
    return Catalogue(pa.table({"item_id": IDS, "title": titles, "removed": removed} | columns))


def make(
    with_memory: bool = True, categories: list[str | None] | None = None, filter_seen: bool = True
) -> Recommender:
    items = catalogue(categories)
    index = ExactIndex(vectors(), popularity_order(items.train_counts), items.removed)
    transitions = memory() if with_memory else None
    return Recommender(
        *(make_model(), index, items, MAX_HISTORY, EVENTS, filter_seen, transitions, segments())
    )


def ask(recommender: Recommender, **query: object) -> Answer:
    [answer] = recommender.recommend([replace(Query(HISTORY, 10), **query)])
    return answer


def numbers_of(answer: Answer) -> list[int]:
    return [IDS.index(item) for item in ids_of(answer)]


class TestFilters:
    @pytest.mark.parametrize("with_memory", [False, True])
    @pytest.mark.parametrize("history", [[], HISTORY])
    @pytest.mark.parametrize("top_k", [1, 7, SIZE])
    def test_the_answer_is_the_whole_ranking_without_what_does_not_pass(
        self, with_memory, history, top_k
    ):
        recommender = make(with_memory)
        whole = ask(recommender, history=history, top_k=SIZE)
        wanted = [i for i in whole.items if PRICES[IDS.index(i.item_id)] >= 8.0]
        found = ask(recommender, history=history, top_k=top_k, filters=[DEAR])
        assert ids_of(found) == [item.item_id for item in wanted][:top_k]
        assert scores_of(found) == pytest.approx([item.score for item in wanted][:top_k])

    @pytest.mark.parametrize("history", [[], HISTORY])
    def test_a_rare_category_is_found_whole_but_for_removed_and_excluded_items(self, history):
        found = ask(make(), history=history, filters=[ONLY_RARE])
        assert sorted(numbers_of(found)) == [3, 141]
        left = ask(make(), history=history, filters=[ONLY_RARE], exclude=["i3"])
        assert numbers_of(left) == [141]

    def test_what_no_item_passes_is_answered_with_nothing(self):
        found = ask(make(), filters=[CHEAP, DEAR])
        assert found == Answer([], "model")

    def test_similar_items_pass_too(self):
        everything = make().similar_items("i5", SIZE)
        found = make().similar_items("i5", 4, [CHEAP])
        assert everything is not None
        assert found is not None
        wanted = [n for n in numbers_of(everything) if PRICES[n] <= 1.0]
        assert numbers_of(found) == wanted[:4]

    def test_a_filter_that_does_not_fit_is_refused_before_anything_is_computed(self):
        with pytest.raises(ValueError, match="no column 'colour'.*category, price"):
            make().check(Query([], filters=[Filter("colour", ("red",))]))


class TestDiversity:
    def test_none_is_exactly_the_plain_answer(self):
        assert ask(make(), diversity=0.0, max_per_category=SIZE) == ask(make())

    @pytest.mark.parametrize("history", [[], HISTORY])
    def test_it_is_chosen_from_a_pool_of_the_best(self, history):
        recommender = make()
        pool = ask(recommender, history=history, top_k=pool_size(10))
        items = numbers_of(pool)
        none = np.full(len(items), -1)
        places = choose(np.array(scores_of(pool)), vectors()[items].numpy(), none, 10, 0.6, None)
        found = ask(recommender, history=history, diversity=0.6)
        assert numbers_of(found) == [items[place] for place in places]
        assert scores_of(found) == [pool.items[place].score for place in places]
        assert numbers_of(found) != items[:10]
        assert found.source == pool.source

    @pytest.mark.parametrize("history", [[], HISTORY])
    def test_a_limit_is_kept_by_going_deeper_than_any_pool(self, history):
        """The first 250 items of the plain ranking are of one category, and the pool has 100."""
        order = numbers_of(ask(make(), history=history, top_k=SIZE))
        categories: list[str | None] = ["other"] * SIZE
        for number in order[:250]:
            categories[number] = "first"
        recommender = make(categories=categories)
        found = ask(recommender, history=history, top_k=4, max_per_category=2)
        assert numbers_of(found) == [*order[:2], *order[250:252]]
        scarce = ask(recommender, history=history, top_k=9, max_per_category=2)
        assert numbers_of(scarce) == [*order[:2], *order[250:252]]

    @pytest.mark.parametrize(
        "wrong", [{"diversity": 1.5}, {"diversity": -0.1}, {"max_per_category": 0}]
    )
    def test_numbers_out_of_range_are_refused(self, wrong):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*: send"):
            make().recommend([Query([], **wrong)])


class TestBatches:
    def test_different_wishes_in_one_batch_are_answered_as_one_by_one(self):
        recommender = make()
        queries = [
            Query(HISTORY, 10),
            Query(HISTORY, 5, filters=[DEAR]),
            Query(HISTORY[:1], 7, ["i9"], [CHEAP], diversity=0.5),
            Query([], 6, filters=[ONLY_RARE], context={"country": "DE"}),
            Query(HISTORY, 30, max_per_category=1),
            Query([], 3, context={"device": "phone"}),
            Query([Event("lost")], 4, diversity=0.9),
            Query(HISTORY[1:], 200, filters=[Filter("category", ("c1",), negated=True)]),
        ]
        together = recommender.recommend(queries)
        for answer, query in zip(together, queries, strict=True):
            [alone] = recommender.recommend([query])
            assert ids_of(answer) == ids_of(alone)
            assert scores_of(answer) == pytest.approx(scores_of(alone), abs=1e-5)
            assert replace(answer, items=[]) == replace(alone, items=[])


class TestSegments:
    POPULAR = sorted(set(range(SIZE)) - {299}, key=lambda n: (-COUNTS[n], n))

    def test_items_of_the_segment_come_first_and_everyones_fill_up(self):
        found = ask(make(), history=[], context={"country": "DE"}, top_k=6)
        rest = [n for n in self.POPULAR if n not in (9, 3, 40)]
        assert numbers_of(found) == [9, 3, 40, *rest[:3]]
        assert scores_of(found) == pytest.approx([0.5, 0.2, 0.05, 0, 0, 0])
        assert (found.source, found.segment) == ("popular", "country=DE")

    def test_the_segment_of_fewest_events_is_the_most_specific(self):
        context = {"country": "DE", "device": "phone", "city": "Ulm"}
        found = ask(make(), history=[], context=context, top_k=3)
        assert found.segment == "device=phone"
        assert numbers_of(found)[:2] == [141, 9]

    @pytest.mark.parametrize("context", [{}, {"country": "FR"}, {"city": "Ulm"}])
    def test_a_context_without_segment_is_answered_as_everyone(self, context):
        found = ask(make(), history=[], context=context)
        assert numbers_of(found) == self.POPULAR[:10]
        assert found.segment is None

    def test_filters_and_exclusions_apply(self):
        found = ask(
            make(), history=[], context={"country": "DE"}, top_k=3, exclude=["i9"], filters=[CHEAP]
        )
        assert numbers_of(found)[0] == 40
        rest = [n for n in self.POPULAR if PRICES[n] <= 1.0 and n not in (9, 40)]
        assert numbers_of(found)[1:] == rest[:2]

    def test_a_known_history_needs_no_segment(self):
        found = ask(make(), context={"country": "DE"})
        assert found == ask(make())
        assert found.segment is None


class TestRankItems:
    WANTED = ["i44", "lost", "i3", "i44", "i299", "i120", "i9"]

    def rank(self, history: list[Event], **context: str) -> Answer:
        query = Query(history, 1, ["i3"], context=context)
        [answer] = make().rank_items([query], [self.WANTED])
        return answer

    @pytest.mark.parametrize("with_memory", [False, True])
    def test_scores_and_order_are_those_of_the_whole_ranking(self, with_memory):
        recommender = make(with_memory, filter_seen=False)
        whole = ask(recommender, top_k=SIZE)
        [found] = recommender.rank_items([Query(HISTORY)], [self.WANTED])
        wanted = [item for item in whole.items if item.item_id in self.WANTED]
        assert ids_of(found) == [item.item_id for item in wanted]
        assert scores_of(found) == pytest.approx([item.score for item in wanted], abs=1e-5)
        assert found.source == "model"

    def test_all_are_ranked_once_and_unknown_and_removed_ones_told(self):
        found = self.rank([Event("gone"), *HISTORY])
        assert sorted(ids_of(found)) == ["i120", "i3", "i44", "i9"]
        assert found.unknown_items == ["gone", "lost", "i299"]

    def test_without_history_popularity_ranks(self):
        found = self.rank([])
        assert numbers_of(found) == sorted([44, 3, 120, 9], key=lambda n: -COUNTS[n])
        total = sum(COUNTS)
        assert scores_of(found) == pytest.approx([COUNTS[n] / total for n in numbers_of(found)])
        assert (found.source, found.segment) == ("popular", None)

    def test_without_history_the_segment_ranks_first(self):
        found = self.rank([], country="DE")
        rest = sorted([44, 120], key=lambda n: -COUNTS[n])
        assert numbers_of(found) == [9, 3, *rest]
        assert found.segment == "country=DE"

    def test_each_query_has_its_own_candidates(self):
        queries = [Query(HISTORY), Query([]), Query(HISTORY[:1])]
        candidates = [["i1", "i2"], ["i3"], []]
        together = make().rank_items(queries, candidates)
        assert [sorted(ids_of(answer)) for answer in together] == candidates
        assert [answer.source for answer in together] == ["model", "popular", "model"]

    def test_equal_scores_are_settled_by_popularity(self):
        items = catalogue()
        index = ExactIndex(vectors()[:1].repeat(SIZE, 1))
        recommender = Recommender(make_model(), index, items, MAX_HISTORY, EVENTS, False)
        [found] = recommender.rank_items([Query(HISTORY)], [["i0", "i4", "i13"]])
        assert numbers_of(found) == sorted([0, 4, 13], key=lambda n: -COUNTS[n])

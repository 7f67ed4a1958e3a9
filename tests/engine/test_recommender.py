from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig
from recsys.data.collate import collate_histories
from recsys.data.tokenize import load_tokenizer
from recsys.data.vocabulary import ItemVocabulary
from recsys.engine.catalogue import Catalogue
from recsys.engine.popularity import PopularityRanking
from recsys.engine.recommender import Event, Query, Recommender
from recsys.index.item_index import VECTORS, ExactIndex, save_index
from recsys.index.segment_popularity import SCHEMA, SEGMENTS
from recsys.models.build import ModelShape, add_heads, build_model, save_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import UNKNOWN_TIME, Answer, History

COUNTS = [5, 9, 0, 9, 2, 7, 0, 1]
NUM_ITEMS, TOTAL = len(COUNTS), sum(COUNTS)
IDS = [f"sku-{number}" for number in range(NUM_ITEMS)]
TITLES = ["Hat", "Nail", None, "Saw", "Shirt", "Drill", "Shoe", "Hammer"]
POPULAR = [1, 3, 5, 0, 4, 7, 2, 6]  # by count; equal counts in index order
EVENTS = ["view", "cart", "purchase"]
MAX_HISTORY = 4
CONFIG = ModelConfig(
    item_features="id",
    embedding_size=16,
    num_heads=2,
    num_layers=2,
    projection_size=16,
    dropout=0.0,
    use_time=True,
)
SHAPE = ModelShape(
    num_items=NUM_ITEMS, max_history=MAX_HISTORY, num_events=len(EVENTS), text_size=0
)


def make_model(seed: int = 0) -> RecommenderModel:
    """A model with large random weights, so that items, order, times and events all matter."""
    torch.manual_seed(seed)
    model = build_model(CONFIG, SHAPE).eval().requires_grad_(False)
    for tensor in model.state_dict().values():
        tensor.add_(torch.randn(tensor.shape) * 0.4)
    return model


def make_catalogue() -> Catalogue:
    return Catalogue(items_table())


def items_table() -> pa.Table:
    removed = [False] * len(IDS)
    columns = {"item_id": IDS, "title": TITLES, "train_count": COUNTS, "removed": removed}
    return pa.table(columns)


def vectors_of(model: RecommenderModel) -> torch.Tensor:
    return model.encode_items(ItemInputs(torch.arange(NUM_ITEMS)))


def make_recommender(filter_seen: bool = False, seed: int = 0) -> Recommender:
    model = make_model(seed)
    index = ExactIndex(vectors_of(model))
    return Recommender(model, index, make_catalogue(), MAX_HISTORY, EVENTS, filter_seen)


def query(*items: int, top_k: int = NUM_ITEMS, exclude: tuple[int, ...] = ()) -> Query:
    return Query([Event(IDS[item]) for item in items], top_k, [IDS[item] for item in exclude])


def one(recommender: Recommender, request: Query) -> Answer:
    (answer,) = recommender.recommend([request])
    return answer


def ids_of(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def scores_of(answer: Answer) -> list[float]:
    return [item.score for item in answer.items]


def assert_same(found: Answer, expected: Answer) -> None:
    assert ids_of(found) == ids_of(expected)
    assert scores_of(found) == pytest.approx(scores_of(expected), abs=1e-5)
    assert found.source == expected.source
    assert found.unknown_items == expected.unknown_items


class TestModelPath:
    def test_all_items_by_cosine_with_the_user_vector(self):
        model = make_model()
        batch = collate_histories([History.of_items([2, 5])], MAX_HISTORY)
        user = model.encode_users(vectors_of(model)[batch.item_indexes], batch)[0].numpy()
        cosines = vectors_of(model).numpy() @ user
        answer = one(make_recommender(), query(2, 5))
        order = np.argsort(-cosines).tolist()
        assert answer.source == "model"
        assert ids_of(answer) == [IDS[item] for item in order]
        assert scores_of(answer) == pytest.approx(cosines[order].tolist(), abs=1e-5)
        assert [item.title for item in answer.items] == [TITLES[item] for item in order]
        assert answer.unknown_items == []

    def test_fewer_items_are_the_head_of_more(self):
        everything = ids_of(one(make_recommender(), query(2, 5)))
        assert ids_of(one(make_recommender(), query(2, 5, top_k=3))) == everything[:3]

    def test_more_than_the_catalogue_gives_the_catalogue(self):
        answer = one(make_recommender(), query(2, 5, top_k=NUM_ITEMS + 50))
        assert sorted(ids_of(answer)) == IDS

    def test_unknown_items_are_reported_and_ignored(self):
        recommender = make_recommender()
        events = [Event("gone"), Event(IDS[2]), Event("lost"), Event(IDS[5]), Event("gone")]
        answer = one(recommender, Query(events, NUM_ITEMS))
        assert answer.unknown_items == ["gone", "lost", "gone"]
        without = one(recommender, query(2, 5))
        assert ids_of(answer) == ids_of(without)
        assert scores_of(answer) == pytest.approx(scores_of(without), abs=1e-6)

    def test_times_and_kinds_stay_with_their_item_when_unknown_ones_are_dropped(self):
        recommender = make_recommender()
        events = [Event("gone", 50, "cart"), Event(IDS[2], 100, "purchase"), Event(IDS[5], 9000)]
        history = History(np.array([2, 5]), np.array([100, 9000]), np.array([2, 0]))
        (expected,) = recommender.rank([history], [NUM_ITEMS], [[]])
        answer = one(recommender, Query(events, NUM_ITEMS))
        assert ids_of(answer) == [IDS[item] for item in expected.item_indexes]
        assert scores_of(answer) == pytest.approx(expected.scores, abs=1e-6)
        plain = one(recommender, query(2, 5))
        assert scores_of(answer) != pytest.approx(scores_of(plain), abs=1e-4)

    def test_a_missing_time_is_unknown_and_not_zero(self):
        recommender = make_recommender()
        items, kinds = np.array([2, 5]), np.array([0, 0])
        unknown = History(items, np.full(2, UNKNOWN_TIME), kinds)
        zero = History(items, np.zeros(2, dtype=np.int64), kinds)
        first, second = recommender.rank([unknown, zero], [NUM_ITEMS] * 2, [[], []])
        assert first.scores != pytest.approx(second.scores, abs=1e-4)
        assert scores_of(one(recommender, query(2, 5))) == pytest.approx(first.scores, abs=1e-5)

    def test_an_event_name_the_dataset_lacks_counts_as_the_first(self):
        recommender = make_recommender()
        named, other, first = (
            one(recommender, Query([Event(IDS[2], event=name)], NUM_ITEMS))
            for name in ("purchase", "stolen", "view")
        )
        assert scores_of(other) == pytest.approx(scores_of(first), abs=1e-6)
        assert scores_of(named) != pytest.approx(scores_of(first), abs=1e-4)

    def test_a_long_history_counts_with_its_newest_events_only(self):
        recommender = make_recommender()
        long, newest = query(6, 6, 7, 0, 1, 2, 3), query(0, 1, 2, 3)
        assert_same(one(recommender, long), one(recommender, newest))
        one_less = one(recommender, query(1, 2, 3))
        assert scores_of(one_less) != pytest.approx(scores_of(one(recommender, newest)), abs=1e-4)

    def test_excluded_items_never_come(self):
        recommender = make_recommender()
        everything = ids_of(one(recommender, query(2, 5)))
        out = [IDS.index(item) for item in everything[:3]]
        answer = one(recommender, query(2, 5, exclude=(*out, out[0])))
        assert ids_of(answer) == everything[3:]

    def test_top_k_is_filled_up_behind_excluded_items(self):
        recommender = make_recommender()
        everything = ids_of(one(recommender, query(2, 5)))
        first = IDS.index(everything[0])
        answer = one(recommender, query(2, 5, top_k=2, exclude=(first,)))
        assert ids_of(answer) == everything[1:3]

    def test_an_unknown_excluded_id_is_no_fault(self):
        recommender = make_recommender()
        request = Query([Event(IDS[2])], NUM_ITEMS, ["gone"])
        assert_same(one(recommender, request), one(recommender, query(2)))

    def test_everything_excluded_gives_an_empty_answer(self):
        answer = one(make_recommender(), query(2, exclude=tuple(range(NUM_ITEMS))))
        assert answer == Answer([], "model", [])


class TestFilterSeen:
    def test_seen_items_never_come(self):
        everything = ids_of(one(make_recommender(filter_seen=False), query(2, 5, 2)))
        answer = one(make_recommender(filter_seen=True), query(2, 5, 2))
        assert {IDS[2], IDS[5]} <= set(everything)
        assert ids_of(answer) == [item for item in everything if item not in (IDS[2], IDS[5])]

    def test_also_those_too_old_for_the_model(self):
        answer = one(make_recommender(filter_seen=True), query(6, 7, 0, 1, 2, 3))
        assert sorted(ids_of(answer)) == [IDS[4], IDS[5]]

    def test_together_with_exclude(self):
        answer = one(make_recommender(filter_seen=True), query(0, 1, exclude=(2, 3, 1)))
        assert sorted(ids_of(answer)) == [IDS[4], IDS[5], IDS[6], IDS[7]]


class TestPopularPath:
    @pytest.mark.parametrize("history", [[], [Event("gone"), Event("lost")]])
    @pytest.mark.parametrize("filter_seen", [False, True])
    def test_without_a_known_item_popular_ones_come(self, history, filter_seen):
        answer = one(make_recommender(filter_seen), Query(history, NUM_ITEMS))
        assert answer.source == "popular"
        assert ids_of(answer) == [IDS[item] for item in POPULAR]
        assert scores_of(answer) == pytest.approx([COUNTS[i] / TOTAL for i in POPULAR])
        assert [item.title for item in answer.items] == [TITLES[item] for item in POPULAR]
        assert answer.unknown_items == [event.item_id for event in history]

    def test_excluded_items_never_come_and_others_fill_up(self):
        answer = one(make_recommender(), query(top_k=3, exclude=(1, 5, 6)))
        assert ids_of(answer) == [IDS[3], IDS[0], IDS[4]]

    def test_more_than_the_catalogue_gives_the_catalogue(self):
        answer = one(make_recommender(), query(top_k=NUM_ITEMS + 50, exclude=(1,)))
        assert ids_of(answer) == [IDS[item] for item in POPULAR[1:]]

    def test_everything_excluded_gives_an_empty_answer(self):
        answer = one(make_recommender(), query(exclude=tuple(range(NUM_ITEMS))))
        assert answer == Answer([], "popular", [])


class TestPopularityRanking:
    def test_ties_in_index_order(self):
        ranking = PopularityRanking(torch.tensor([3, 7, 3, 7, 3]))
        assert ranking.top(5, [])[0] == [1, 3, 0, 2, 4]
        assert ranking.top(3, [])[0] == [1, 3, 0]
        assert ranking.top(3, [3, 0])[0] == [1, 2, 4]
        assert PopularityRanking(torch.ones(3000)).top(3000, [])[0] == list(range(3000))

    def test_an_item_excluded_twice_takes_one_place(self):
        ranking = PopularityRanking(torch.tensor([3, 7, 5]))
        assert ranking.top(2, [1, 1, 1]) == ([2, 0], pytest.approx([5 / 15, 3 / 15]))

    def test_removed_items_are_left_out(self):
        ranking = PopularityRanking(torch.tensor([3, 7, 5]), torch.tensor([False, True, False]))
        assert ranking.top(3, []) == ([2, 0], pytest.approx([5 / 15, 3 / 15]))

    def test_a_shop_without_events_has_shares_of_zero(self):
        assert PopularityRanking(torch.tensor([0, 0, 0])).top(2, []) == ([0, 1], [0.0, 0.0])

    def test_large_counts_that_differ_by_one_are_no_tie(self):
        """2^24 + 1 is the first whole number that float32 does not have."""
        assert PopularityRanking(torch.tensor([2**24, 2**24 + 1])).top(2, [])[0] == [1, 0]


class TestBatches:
    def test_answers_in_one_batch_equal_answers_alone(self):
        recommender = make_recommender(filter_seen=True)
        queries = [
            query(2, 5, top_k=2),
            query(top_k=4, exclude=(1,)),
            query(0, 1, 2, 3, 4, 5, 6, top_k=20),
            Query([Event("gone"), Event(IDS[3], 500, "cart")], 3, [IDS[0]]),
            Query([Event("gone")], 5),
            query(7, top_k=1),
        ]
        together = recommender.recommend(queries)
        assert len(together) == len(queries)
        for answer, request in zip(together, queries, strict=True):
            assert_same(answer, one(recommender, request))
            assert len(answer.items) <= request.top_k
        assert [answer.source for answer in together] == [
            *("model", "popular", "model", "model", "popular", "model")
        ]

    def test_no_requests_no_answers(self):
        assert make_recommender().recommend([]) == []


class TestSimilarItems:
    @pytest.mark.parametrize("item", [0, 3, 7])
    def test_nearest_first_without_itself(self, item):
        vectors = vectors_of(make_model()).numpy()
        cosines = vectors @ vectors[item]
        order = [other for other in np.argsort(-cosines).tolist() if other != item]
        answer = make_recommender(filter_seen=True).similar_items(IDS[item], 4)
        assert answer is not None
        assert answer.source == "model"
        assert ids_of(answer) == [IDS[other] for other in order[:4]]
        assert scores_of(answer) == pytest.approx(cosines[order[:4]].tolist(), abs=1e-5)

    def test_more_than_there_are_gives_all_others(self):
        answer = make_recommender().similar_items(IDS[2], 100)
        assert answer is not None
        assert sorted(ids_of(answer)) == [item for item in IDS if item != IDS[2]]

    @pytest.mark.parametrize("item", ["gone", ""])
    def test_an_unknown_item_has_none(self, item):
        assert make_recommender().similar_items(item, 3) is None


class TestLoad:
    def checkpoint(self, backbone: str, folder: Path, seed: int) -> Artifact:
        writer = ArtifactWriter(folder, "checkpoint")
        save_model(make_model(seed), writer, load_tokenizer(backbone))
        facts = {"shape": SHAPE.model_dump(), "prepare": {"events": EVENTS}}
        return writer.publish({"model": CONFIG.model_dump(), "training": {}}, {}, facts)

    def index(self, folder: Path, checkpoint: str | None, seed: int) -> Artifact:
        writer = ArtifactWriter(folder, "index")
        writer.add_bytes(VECTORS, save_index(ExactIndex(vectors_of(make_model(seed)))))
        writer.add_table("items.parquet", items_table())
        return writer.publish({}, {"checkpoint": checkpoint} if checkpoint else {})

    @pytest.mark.parametrize("filter_seen", [False, True])
    def test_answers_as_the_one_built_by_hand(self, tiny_backbone, tmp_path, filter_seen):
        checkpoint = self.checkpoint(tiny_backbone, tmp_path / "checkpoint", seed=1)
        index = self.index(tmp_path / "index", checkpoint.digest, seed=1)
        loaded = Recommender.load(checkpoint, index, filter_seen)
        by_hand = make_recommender(filter_seen, seed=1)
        assert loaded.num_items == NUM_ITEMS
        request = Query([Event(IDS[item], 60 * item, "cart") for item in range(1, 7)], NUM_ITEMS)
        for asked in (request, query(0), query()):
            assert_same(one(loaded, asked), one(by_hand, asked))

    def test_segments_and_rows_in_training_are_read(self, tiny_backbone, tmp_path):
        model = make_model(seed=1)
        add_heads(model, ["probability"], CONFIG, SHAPE)
        model.heads.requires_grad_(False)
        model.heads.probability.item_counts.copy_(torch.arange(NUM_ITEMS) ** 4)
        model.heads.probability.network[-1].weight.fill_(0.1)
        writer = ArtifactWriter(tmp_path / "checkpoint", "checkpoint")
        save_model(model, writer, load_tokenizer(tiny_backbone))
        writer.add_table("items.parquet", pa.table({"item_id": IDS[::-1]}))
        facts = {"shape": SHAPE.model_dump(), "prepare": {"events": EVENTS}}
        checkpoint = writer.publish({"model": CONFIG.model_dump(), "training": {}}, {}, facts)
        writer = ArtifactWriter(tmp_path / "index", "index")
        writer.add_bytes(VECTORS, save_index(ExactIndex(vectors_of(model))))
        writer.add_table("items.parquet", items_table())
        segment = {"column": "country", "value": "DE", "events": 4, "items": [6], "counts": [3]}
        writer.add_table(SEGMENTS, pa.Table.from_pylist([segment], SCHEMA))
        index = writer.publish({}, {"checkpoint": checkpoint.digest})
        loaded = Recommender.load(checkpoint, index, filter_seen=False)
        popular = one(loaded, Query([], 2, context={"country": "DE"}))
        assert (ids_of(popular), popular.segment) == ([IDS[6], IDS[1]], "country=DE")
        trained = ItemVocabulary(IDS[::-1]).indexes_of(IDS)
        by_hand = Recommender(
            *(model, ExactIndex(vectors_of(model)), make_catalogue(), MAX_HISTORY, EVENTS, False),
            trained=trained,
        )
        expected = [item.probability for item in one(by_hand, query(2)).items]
        found = [item.probability for item in one(loaded, query(2)).items]
        assert found == pytest.approx(expected)
        assert len(set(found)) == NUM_ITEMS

    def test_an_index_of_another_checkpoint_is_refused(self, tiny_backbone, tmp_path):
        one = self.checkpoint(tiny_backbone, tmp_path / "one", seed=1)
        two = self.checkpoint(tiny_backbone, tmp_path / "two", seed=2)
        index = self.index(tmp_path / "index", two.digest, seed=2)
        with pytest.raises(ValueError, match=f"{two.digest[:12]}.*{one.digest[:12]}"):
            Recommender.load(one, index, filter_seen=False)
        assert Recommender.load(two, index, filter_seen=False).num_items == NUM_ITEMS

    def test_an_index_that_names_no_checkpoint_is_refused(self, tiny_backbone, tmp_path):
        checkpoint = self.checkpoint(tiny_backbone, tmp_path / "checkpoint", seed=1)
        index = self.index(tmp_path / "index", None, seed=1)
        with pytest.raises(ValueError, match="build the index again"):
            Recommender.load(checkpoint, index, filter_seen=False)

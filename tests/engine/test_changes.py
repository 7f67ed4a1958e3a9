"""Items that come, change and go while requests are answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from recsys.engine.filters import Filter
from recsys.engine.recommender import Event, Query, Recommender
from tests.engine.test_ranking import HISTORY, IDS, SIZE, ask, make, vectors
from tests.engine.test_recommender import ids_of

CAP = {"title": "Cap 帽子", "category": "hats", "price": 4.0}


def similar_to(*numbers: int) -> torch.Tensor:
    return F.normalize(vectors()[list(numbers)] + 0.01, dim=-1)


def with_caps(recommender: Recommender) -> Recommender:
    return recommender.with_items(["cap", "帽子"], similar_to(5, 17), [CAP, CAP | {"price": 40.0}])


def test_a_new_item_is_found_at_once_by_what_is_like_it():
    changed = with_caps(make())
    [first] = changed.similar_items("i5", 1).items
    assert (first.item_id, first.title) == ("cap", "Cap 帽子")
    assert changed.similar_items("帽子", 1).items[0].item_id == "i17"
    assert set(ids_of(ask(changed, top_k=SIZE))) >= {"cap", "帽子"}
    # The user's vector of a history is this model's, and near it lies what has the same vector.
    made = make(with_memory=False)
    best = ids_of(ask(made, top_k=1))[0]
    twin = made.with_items(["twin"], vectors()[[IDS.index(best)]], [CAP])
    assert sorted(ids_of(ask(twin, top_k=2))) == sorted([best, "twin"])


def test_a_new_item_can_be_filtered_ranked_shown_and_is_known_in_a_history():
    changed = with_caps(make())
    hats = [Filter("category", ("hats",)), Filter("price", maximum=5.0)]
    assert ids_of(ask(changed, filters=hats)) == ["cap"]
    assert ids_of(ask(changed, filters=hats, history=[])) == ["cap"]
    assert changed.item("帽子") == {
        "item_id": "帽子",
        "title": "Cap 帽子",
        "attributes": {"category": "hats", "price": 40.0},
    }
    [answer] = changed.rank_items([Query(HISTORY)], [["cap", "i1", "帽子"]])
    assert sorted(ids_of(answer)) == ["cap", "i1", "帽子"]
    found = ask(changed, history=[Event("cap"), Event("i1")])
    assert (found.source, found.unknown_items) == ("model", [])
    assert "cap" not in ids_of(found)


def test_the_scores_of_all_others_stay():
    before = {i.item_id: i.score for i in ask(make(), top_k=SIZE).items}
    after = {i.item_id: i.score for i in ask(with_caps(make()), top_k=2 * SIZE).items}
    assert set(after) == set(before) | {"cap", "帽子"}
    assert {i: after[i] for i in before} == pytest.approx(before, abs=1e-5)


def test_an_item_may_get_other_words_and_another_vector():
    changed = make().with_items(["i30"], similar_to(5), [CAP])
    assert changed.num_items == SIZE
    assert changed.similar_items("i5", 1).items[0].item_id == "i30"
    assert changed.item("i30")["attributes"] == {"category": "hats", "price": 4.0}


@pytest.mark.parametrize("history", [[], HISTORY])
def test_a_removed_item_is_never_answered(history):
    best = ids_of(ask(make(), history=history, top_k=3, context={"country": "DE"}))
    changed = make().without_items([*best, "no such id"])
    found = ask(changed, history=history, top_k=SIZE, context={"country": "DE"})
    assert not set(best) & set(ids_of(found))
    assert len(found.items) == len(ask(make(), history=history, top_k=SIZE).items) - 3
    [ranked] = changed.rank_items([Query(history)], [[*best, "i250"]])
    assert ids_of(ranked) == ["i250"]
    assert sorted(ranked.unknown_items) == sorted(best)
    assert best[0] not in ids_of(changed.similar_items("i5", SIZE))


def test_changes_follow_on_changes():
    changed = (
        with_caps(make()).without_items(["cap", "i5"]).with_items(["mug"], similar_to(5), [CAP])
    )
    assert ids_of(changed.similar_items("i5", 1)) == ["mug"]
    again = changed.with_items(["cap"], similar_to(40), [CAP])
    assert again.similar_items("i40", 1).items[0].item_id == "cap"
    assert "i5" not in ids_of(ask(again, history=[], top_k=2 * SIZE))
    assert again.num_items == SIZE + 3


def test_the_recommender_before_stays_as_it_was_for_requests_in_other_threads():
    recommender = make()
    expected = ask(recommender, diversity=0.3)
    current = [recommender]

    def request(_: int) -> bool:
        now = current[0]
        known = now.item("cap") is not None
        return known == ("cap" in ids_of(ask(now, top_k=2 * SIZE)))

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(request, n) for n in range(40)]
        current[0] = with_caps(recommender)
        assert all(answer.result() for answer in answers)
    assert ask(recommender, diversity=0.3) == expected
    assert recommender.item("cap") is None


def test_what_does_not_fit_is_refused():
    recommender = make()
    with pytest.raises(ValueError, match="each id once"):
        recommender.with_items(["x", "x"], similar_to(1, 2), [CAP, CAP])
    with pytest.raises(ValueError, match=r"1 ids with vectors \(1, 3\).*16 numbers"):
        recommender.with_items(["x"], torch.zeros(1, 3), [CAP])
    with pytest.raises(ValueError, match="no column colour"):
        recommender.with_items(["x"], similar_to(1), [{"colour": "red"}])

import json

import pytest
from pydantic import ValidationError

from recsys.engine.filters import Filter
from recsys.engine.recommender import Event, Query
from recsys.schema import Answer, Explanation, Recommendation
from recsys.serving.api.requests import (
    MAX_ID_LENGTH,
    MAX_TIMESTAMP,
    RankRequest,
    RecommendRequest,
    SimilarItemsRequest,
)
from recsys.serving.api.responses import RecommendResponse
from recsys.serving.queries import events_of
from recsys.serving.queries import query_of as to_engine

NOW = 1_700_000_000


def parse(**body) -> RecommendRequest:
    """The request as it arrives: JSON."""
    return RecommendRequest.model_validate_json(json.dumps({"history": []} | body))


def query_of(request: RecommendRequest) -> Query:
    """The engine's query for the history that was sent."""
    events = events_of(request)
    assert events is not None
    return to_engine(request, events)


def faults(model, body: dict) -> set[tuple]:
    """(path, kind of fault) of everything that is wrong with a body."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(body))
    return {(fault["loc"], fault["type"]) for fault in caught.value.errors()}


class TestRecommendRequest:
    def test_defaults(self):
        assert query_of(parse()) == Query([], 10)

    def test_ids_and_events_mix_and_keep_their_order(self):
        query = query_of(
            parse(
                history=[
                    "sku-3",
                    {"item_id": "sku-1", "timestamp": NOW, "event": "cart"},
                    "sku-2",
                    {"item_id": "sku-1"},
                    {"item_id": "sku-3", "event": "view"},
                    {"item_id": "sku-9", "timestamp": 0},
                ],
                top_k=7,
                exclude=["sku-5", "sku-4"],
            )
        )
        assert query.history == [
            Event("sku-3"),
            Event("sku-1", NOW, "cart"),
            Event("sku-2"),
            Event("sku-1"),
            Event("sku-3", None, "view"),
            Event("sku-9", 0),
        ]
        assert query.top_k == 7
        assert query.exclude == ("sku-5", "sku-4")

    def test_a_user_or_a_history_is_needed(self):
        assert faults(RecommendRequest, {"top_k": 3}) == {((), "value_error")}

    def test_an_unknown_field_is_refused(self):
        found = faults(RecommendRequest, {"history": [], "topk": 5})
        assert found == {(("topk",), "extra_forbidden")}

    def test_an_unknown_field_of_an_event_is_refused(self):
        found = faults(RecommendRequest, {"history": [{"item_id": "a", "time": NOW}]})
        assert (("history", 0, "HistoryEvent", "time"), "extra_forbidden") in found

    @pytest.mark.parametrize("top_k", [0, -1])
    def test_top_k_below_one_is_refused(self, top_k):
        found = faults(RecommendRequest, {"history": [], "top_k": top_k})
        assert found == {(("top_k",), "greater_than_equal")}

    @pytest.mark.parametrize("top_k", [1, 5000])
    def test_top_k_from_one_on_is_taken(self, top_k):
        assert query_of(parse(top_k=top_k)).top_k == top_k

    @pytest.mark.parametrize("top_k", [2.5, "many", None])
    def test_top_k_must_be_a_whole_number(self, top_k):
        assert {path for path, _ in faults(RecommendRequest, {"history": [], "top_k": top_k})} == {
            ("top_k",)
        }

    @pytest.mark.parametrize(
        ("timestamp", "fault"),
        [
            (NOW * 1000, "less_than_equal"),
            (MAX_TIMESTAMP + 1, "less_than_equal"),
            (-1, "greater_than_equal"),
            (NOW + 0.5, "int_from_float"),
        ],
    )
    def test_a_timestamp_that_is_not_unix_seconds_is_refused(self, timestamp, fault):
        body = {"history": ["a", {"item_id": "b", "timestamp": timestamp}]}
        found = faults(RecommendRequest, body)
        assert (("history", 1, "HistoryEvent", "timestamp"), fault) in found

    @pytest.mark.parametrize("timestamp", [0, NOW, MAX_TIMESTAMP, None])
    def test_unix_seconds_are_taken(self, timestamp):
        history = query_of(parse(history=[{"item_id": "b", "timestamp": timestamp}])).history
        assert history == [Event("b", timestamp)]

    @pytest.mark.parametrize(
        "body",
        [
            {"history": [""]},
            {"history": [{"item_id": ""}]},
            {"history": [], "exclude": [""]},
        ],
    )
    def test_an_empty_id_is_refused(self, body):
        assert "string_too_short" in {kind for _, kind in faults(RecommendRequest, body)}

    def test_an_overlong_id_is_refused(self):
        assert query_of(parse(history=["x" * MAX_ID_LENGTH])).history[0].item_id[-1] == "x"
        found = faults(RecommendRequest, {"history": ["x" * (MAX_ID_LENGTH + 1)]})
        assert "string_too_long" in {kind for _, kind in found}

    @pytest.mark.parametrize("entry", [5, None, ["a"], {"timestamp": NOW}])
    def test_a_history_entry_must_be_an_id_or_an_event(self, entry):
        found = faults(RecommendRequest, {"history": [entry]})
        assert {path[:2] for path, _ in found} == {("history", 0)}

    def test_chinese_ids_and_names_pass_unchanged(self):
        query = query_of(parse(history=[{"item_id": "商品-1", "event": "购买"}]))
        assert query.history == [Event("商品-1", None, "购买")]

    def test_two_requests_share_no_list(self):
        one, two = parse(), parse()
        one.exclude.append("a")
        assert two.exclude == []
        assert parse().exclude == []


class TestSimilarItemsRequest:
    def test_defaults(self):
        request = SimilarItemsRequest.model_validate_json('{"item_id": "a"}')
        assert (request.item_id, request.top_k) == ("a", 10)

    @pytest.mark.parametrize(
        ("body", "fault"),
        [
            ({}, (("item_id",), "missing")),
            ({"item_id": ""}, (("item_id",), "string_too_short")),
            ({"item_id": "a", "top_k": 0}, (("top_k",), "greater_than_equal")),
            ({"item_id": "a", "history": []}, (("history",), "extra_forbidden")),
        ],
    )
    def test_wrong_bodies_are_refused(self, body, fault):
        assert faults(SimilarItemsRequest, body) == {fault}


class TestRankRequest:
    def test_something_to_rank_by_is_needed(self):
        assert faults(RankRequest, {"item_ids": ["a"]}) == {((), "value_error")}

    @pytest.mark.parametrize("by", [{"user_id": "u"}, {"history": []}, {"text": "red hat"}])
    def test_any_of_the_three_will_do(self, by):
        assert RankRequest(item_ids=["a"], **by).item_ids == ["a"]

    def test_candidates_are_needed(self):
        assert faults(RankRequest, {"item_ids": [], "user_id": "u"}) == {
            (("item_ids",), "too_short")
        }


def test_a_filter_travels_whole():
    parsed = parse(
        filters=[
            {"column": "price", "maximum": 9.5},
            {"column": "brand", "values": ["a"], "negated": True},
        ]
    )
    assert query_of(parsed).filters == (
        Filter("price", (), None, 9.5),
        Filter("brand", ("a",), negated=True),
    )


class TestRecommendResponse:
    def test_mapping(self):
        answer = Answer(
            [Recommendation("b", 0.75, "Nail", 0.2), Recommendation("a", -0.5, None)],
            "popular",
            ["gone", "lost"],
            "country=DE",
        )
        event = ("h", "Hat", 0.25)
        why = [Explanation(item, [event], [("brand", "X")], "Because.") for item in answer.items]
        response = RecommendResponse.of(answer, "abc123", why, request_id="r-1")
        reason = {
            "sentence": "Because.",
            "events": [{"item_id": "h", "title": "Hat", "contribution": 0.25}],
            "shared": {"brand": "X"},
        }
        first = {"item_id": "b", "score": 0.75, "title": "Nail", "probability": 0.2}
        second = {"item_id": "a", "score": -0.5, "title": None, "probability": None}
        assert json.loads(response.model_dump_json()) == {
            "items": [first | {"why": reason}, second | {"why": reason}],
            "source": "popular",
            "segment": "country=DE",
            "unknown_items": ["gone", "lost"],
            "degraded": [],
            "variants": {},
            "model_version": "abc123",
            "request_id": "r-1",
        }

    def test_an_empty_answer(self):
        response = RecommendResponse.of(Answer([], "popular"), "v")
        assert (response.items, response.source, response.unknown_items) == ([], "popular", [])

"""What is understood of a query: slots, negations, spelling, intent, and that nothing breaks it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.engine.filters import Filter
from recsys.engine.query.intent import FEATURES, INTENTS, IntentClassifier
from recsys.engine.query.prototypes import Prototypes
from recsys.engine.query.understander import QueryUnderstander, script_language
from recsys.engine.query.understanding import MAX_QUERY_CHARS, QueryUnderstanding, Slot
from tests.engine.query.shop import shop_items


@pytest.fixture(scope="module")
def shop() -> QueryUnderstander:
    return QueryUnderstander(shop_items())


def found(read: QueryUnderstanding) -> set[tuple[str, str | None, bool]]:
    return {(slot.kind, slot.value, slot.negated) for slot in read.slots}


WANTED = [
    ("red backpack", {("colour", "red"), ("category", "Bags")}),
    ("Nordic Peak tents", {("brand", "Nordic Peak"), ("category", "Camping gear")}),
    ("nordic tent", {("brand", "Nordic Peak"), ("category", "Camping gear")}),
    ("red oak wallet", {("brand", "Red Oak"), ("category", "Bags")}),
    ("mug for camping", {("category", "Kitchen")}),
    ("camping mug", {("category", "Kitchen")}),
    ("camping gear", {("category", "Camping gear")}),
    ("红色背包", {("colour", "红色"), ("category", "箱包")}),
    ("gift for my 5 year old daughter", {("recipient", "daughter")}),
    ("送给妈妈的钱包", {("recipient", "mother"), ("category", "箱包")}),
    ("alvenr tent", {("brand", "Alvenor"), ("category", "Camping gear")}),
]
UNWANTED = [
    ("backpack not red", ("colour", "red")),
    ("wallet without leather", ("without", "leather")),
    ("no Alvenor tent", ("brand", "Alvenor")),
    ("sugar-free mug", ("without", "sugar")),
    ("不要红色的背包", ("colour", "红色")),
    ("无糖 背包", ("without", "糖")),
]


@pytest.mark.parametrize(("text", "slots"), WANTED)
def test_what_the_catalogue_has_is_found_in_the_query(shop, text, slots):
    assert found(shop.understand(text)) == {(kind, value, False) for kind, value in slots}


@pytest.mark.parametrize(("text", "slot"), UNWANTED)
def test_what_is_not_wanted_is_marked(shop, text, slot):
    read = shop.understand(text)
    assert (*slot, True) in found(read)
    assert (*slot, False) not in found(read)


@pytest.mark.parametrize("text", ["hands-free tent", "有没有背包", "无线背包", "no 5 tent"])
def test_words_that_only_look_like_a_negation_deny_nothing(shop, text):
    assert not any(slot.negated for slot in shop.understand(text).slots)


def test_a_list_is_denied_as_a_whole(shop):
    read = shop.understand("tent, not red or blue")
    assert {("colour", "red", True), ("colour", "blue", True)} <= found(read)
    assert ("colour", ("red", "blue"), None, None, True) in read.as_filters()


def test_the_places_of_slots_are_places_of_the_normalised_text(shop):
    read = shop.understand("  Alvenr   RED backpack under $30 ")
    assert read.normalised == "Alvenr RED backpack under $30"
    places = {s.kind: read.normalised[s.start : s.end] for s in read.slots}
    assert places == {
        "brand": "Alvenr",
        "colour": "RED",
        "category": "backpack",
        "price": "under $30",
    }


def test_slots_become_filters_that_the_engine_takes(shop):
    filters = [
        Filter(*given) for given in shop.understand("red or blue mug 10-20 euros").as_filters()
    ]
    assert set(filters) == {
        Filter("colour", ("red", "blue")),
        Filter("category", ("Kitchen",)),
        Filter("price", minimum=10.0, maximum=20.0),
    }


def test_an_unsure_slot_is_told_but_does_not_filter():
    slot = Slot(kind="category", column="category", value="Bags", confidence=0.4)
    read = QueryUnderstanding(
        text="x", normalised="x", language="en", intent="category", confidence=1.0, slots=(slot,)
    )
    assert read.as_filters() == []
    assert read.as_filters(min_confidence=0.3) == [("category", ("Bags",), None, None, False)]


def test_what_is_searched_for_leaves_out_prices_recipients_and_the_unwanted(shop):
    read = shop.understand("alvenr backpack for my son under $30 without leather")
    assert read.search_text() == "alvenor backpack"
    assert read.unwanted() == ["leather"]
    assert shop.understand("under $30").search_text() == "under $30"


@pytest.mark.parametrize(
    ("text", "corrected"),
    [
        ("bakpack", "backpack"),
        ("brimwlet tent", "brimwelt tent"),
        ("tent wihtout red", "tent without red"),
        ("backpacks", None),
        ("tent 12345x", None),
        ("tant", "tent"),
        ("daughter", None),
        ("pent", None),
        ("tetns", "tent"),
        ("背色", None),
        ("xyzzyx", None),
    ],
)
def test_only_an_unknown_word_near_a_known_one_is_corrected(shop, text, corrected):
    assert shop.understand(text).corrected == corrected


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("Alvenor red backpack", "navigational"),
        ("tent", "category"),
        ("buy kitchen", "category"),
        ("red tent", "attribute"),
        ("tent under 30", "attribute"),
        ("Brimwelt teapot", "attribute"),
        ("gift ideas for my wife", "exploratory"),
        ("有什么推荐", "exploratory"),
        ("", "exploratory"),
    ],
)
def test_the_intent_is_told_with_confidence(shop, text, intent):
    read = shop.understand(text)
    assert read.intent == intent
    assert 0.5 < read.confidence <= 1


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("red tent", "en"),
        ("红色背包", "zh"),
        ("Alvenor 背包", "mixed"),
        ("красный рюкзак", "other"),
        ("バッグ", "other"),
        ("123 😀", "other"),
    ],
)
def test_the_script_tells_the_language(text, language):
    assert script_language(text) == language


def test_a_detector_is_asked_only_of_latin_text_that_the_catalogue_does_not_know(shop):
    asked = []

    def detect(texts: pl.Series) -> pl.Series:
        asked.extend(texts)
        return pl.Series(["de"] * len(texts))

    shop_items_ = shop_items()
    reader = QueryUnderstander(shop_items_, shop.classifier, detect_languages=detect)
    assert reader.understand("ein schoener grosser ranzen").language == "other"
    assert reader.understand("red tent").language == "en"
    assert asked == ["ein schoener grosser ranzen"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(alphabet=st.characters(), max_size=400) | st.text("不无 not-free0$€,.元a", max_size=300)
)
@example("x" * 10_000)
@example("1," * 5_000)
@example("without " * 2_000)
@example("tnet " * 60)
@example("'; DROP TABLE items; --<script>alert(1)</script>{{7*7}}${jndi:ldap://a}")
@example("😀👨‍👩‍👧" * 50)
@example("\x00\x00tent\x00")
@example("\u202eשלום عليكم\u202c")
@example("\ud800 half a pair")
@example("İİİ ẞ ﬁ tent")
def test_any_text_is_answered_in_json_and_taken_back(shop, text):
    read = shop.understand(text)
    told = read.model_dump_json()
    assert QueryUnderstanding.model_validate_json(told) == read
    json.loads(told.encode("utf-8"))
    assert len(read.normalised) <= MAX_QUERY_CHARS
    for slot in read.slots:
        assert 0 <= slot.start < slot.end <= len(read.normalised)
    assert read.search_text() or not read.normalised


def test_a_client_may_edit_but_not_invent(shop):
    told = shop.understand("red tent").model_dump()
    told["slots"] = [s for s in told["slots"] if s["kind"] != "colour"]
    edited = QueryUnderstanding.model_validate(told)
    assert edited.as_filters() == [("category", ("Camping gear",), None, None, False)]
    with pytest.raises(ValidationError, match="extra"):
        QueryUnderstanding.model_validate(told | {"sql": "1=1"})
    with pytest.raises(ValidationError, match="more than maximum"):
        Slot(kind="price", minimum=3, maximum=2)


def test_the_same_catalogue_teaches_the_same_and_bytes_bring_it_back(shop):
    again = QueryUnderstander(shop_items())
    assert again.classifier.to_bytes() == shop.classifier.to_bytes()
    loaded = IntentClassifier.from_bytes(shop.classifier.to_bytes())
    reader = QueryUnderstander(shop_items(), loaded)
    assert reader.understand("red tent") == shop.understand("red tent")


def test_a_classifier_of_other_features_is_refused(shop):
    told = json.loads(shop.classifier.to_bytes())
    with pytest.raises(ValueError, match="run the index stage again"):
        IntentClassifier.from_bytes(json.dumps(told | {"features": ["x"]}).encode())
    with pytest.raises(ValueError, match="fit it again"):
        IntentClassifier(np.full((len(FEATURES) + 1, len(INTENTS)), np.nan))


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_catalogue_of_next_to_nothing_is_enough(rows):
    items = pa.table({"title": pa.array([None, "tent", ""][:rows], pa.string())})
    read = QueryUnderstander(items).understand("tent under 20")
    assert [(slot.kind, slot.column) for slot in read.slots] == [("price", None)]
    assert read.as_filters() == []


def test_removed_items_teach_nothing():
    items = pa.table(
        {"title": ["Zorblax lamp"], "brand": ["Zorblax"], "category": ["Lamps"], "removed": [True]}
    )
    assert QueryUnderstander(items).understand("zorblax").slots == ()


def test_the_nearest_prototype_fills_what_no_word_names(shop):
    items = shop_items()
    categories = items["category"].to_pylist()
    axes = {name: n for n, name in enumerate(dict.fromkeys(categories))}
    vectors = np.eye(4)[[axes[c] for c in categories]]
    prototypes = [Prototypes("category", vectors, categories)]

    def encode(texts: list[str]) -> np.ndarray:
        return np.eye(4)[[axes["Kitchen"]] * len(texts)]

    reader = QueryUnderstander(items, shop.classifier, prototypes=prototypes, encode=encode)
    [slot] = reader.understand("something to drink from").slots
    assert (slot.value, slot.start, slot.column) == ("Kitchen", None, "category")
    assert slot.confidence > 0.9
    named = reader.understand("tent").slots
    assert [s.value for s in named] == ["Camping gear"]

"""What is kept of users' histories: never another answer, and less work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import ModelConfig
from recsys.data.collate import collate_histories
from recsys.engine import user_states
from recsys.engine.user_states import UserStates
from recsys.index.item_index import ItemIndex, make_index
from recsys.models.build import ModelShape, build_model
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History

NUM_ITEMS, MAX_HISTORY, SIZE = 40, 24, 16
FEATURES = {"use_time": True, "use_calendar": True, "use_repeats": True}


@pytest.fixture(autouse=True)
def short_histories_are_long(monkeypatch):
    monkeypatch.setattr(user_states, "LONG", 4)


def make_model(**changes) -> RecommenderModel:
    torch.manual_seed(0)
    told = {"embedding_size": SIZE, "item_features": "id"} | FEATURES | changes
    shape = ModelShape(num_items=NUM_ITEMS, max_history=MAX_HISTORY, num_events=2, text_size=8)
    model = build_model(ModelConfig(**told), shape)
    for parameter in model.user_encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


def make_items() -> ItemIndex:
    vectors = torch.randn(NUM_ITEMS, SIZE, generator=torch.Generator().manual_seed(1))
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    return make_index(vectors, "fp32", torch.arange(NUM_ITEMS), torch.zeros(NUM_ITEMS).bool())


MODELS = {
    "transformer": make_model(),
    "hybrid": make_model(item_features="hybrid"),
    "gru": make_model(user_encoder="gru"),
}
ITEMS = make_items()
EVERY_MODEL = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def history(*items: int) -> History:
    times = np.cumsum(np.arange(len(items)) * 3_000) + 1_700_000_000
    return History(np.array(items), times, np.array(items) % 2)


def computed(model: RecommenderModel, histories: list[History]) -> torch.Tensor:
    batch = collate_histories(histories, MAX_HISTORY)
    with torch.inference_mode():
        return model.encode_users(ITEMS.vectors_of(batch.item_indexes), batch)


def make_states(model: RecommenderModel, megabytes: int = 8) -> UserStates:
    return UserStates(model, ITEMS, MAX_HISTORY, megabytes)


@EVERY_MODEL
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_was_asked_before_the_vectors_are_those_of_a_fresh_pass(model, data):
    states = make_states(model)
    items = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=MAX_HISTORY + 4)
    known = [history(*some) for some in data.draw(st.lists(items, min_size=1, max_size=3))]
    for _ in range(3):
        asked = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
        assert states.encode(asked).numpy() == pytest.approx(
            computed(model, asked).numpy(), abs=1e-5
        )
        more = data.draw(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=3))
        known.append(history(*asked[0].item_indexes, *more))


def test_an_unchanged_history_costs_nothing_and_a_longer_one_a_step():
    states = make_states(MODELS["transformer"])
    states.encode([history(1, 2, 3, 4, 5)])
    states.encode([history(1, 2, 3, 4, 5)])
    states.encode([history(1, 2, 3, 4, 5, 6, 7)])
    states.encode([history(1, 2, 3, 4, 5, 6, 7, 8)])
    assert states.counts == {"unchanged": 1, "extended": 2, "read": 1}


def test_a_step_reads_the_new_events_alone(monkeypatch):
    model, lengths = MODELS["transformer"], []
    layers = model.user_encoder.layers  # pyright: ignore
    read_on = layers.read_on
    monkeypatch.setattr(
        layers, "read_on", lambda x, past: lengths.append(x.shape[1]) or read_on(x, past)
    )
    states = make_states(model)
    states.encode([history(*range(10))])
    states.encode([history(*range(12))])
    assert lengths == [10, 2]


@pytest.mark.parametrize("column", ["item_indexes", "timestamps", "events"])
def test_a_history_with_anything_else_in_it_is_another(column):
    states, first = make_states(MODELS["transformer"]), history(1, 2, 3, 4, 5)
    states.encode([first])
    other = history(1, 2, 3, 4, 5)
    getattr(other, column)[1] += 1 if column != "events" else 1 - 2 * getattr(other, column)[1]
    found = states.encode([other])
    assert states.counts["unchanged"] == 0
    assert found.numpy() == pytest.approx(
        computed(MODELS["transformer"], [other]).numpy(), abs=1e-5
    )


def test_a_window_that_has_moved_on_is_read_again():
    states = make_states(MODELS["transformer"])
    states.encode([history(*range(MAX_HISTORY))])
    states.encode([history(*range(MAX_HISTORY + 1))])
    assert states.counts == {"unchanged": 0, "extended": 0, "read": 2}


def test_layers_that_keep_no_state_still_remember_vectors():
    states = make_states(MODELS["gru"])
    for items in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]):
        states.encode([history(*items)])
    assert states.counts == {"unchanged": 1, "extended": 0, "read": 2}


def test_memory_is_bounded_and_the_oldest_go_first():
    states = make_states(MODELS["transformer"], megabytes=1)
    size = 20 * 2 * 2 * SIZE * 4  # events, keys and values, layers, width, bytes
    asked = [history(*np.random.default_rng(n).integers(0, NUM_ITEMS, 20)) for n in range(500)]
    assert size * len(asked) > 1 << 20
    for one in asked:
        states.encode([one])
    states.encode([asked[-1], asked[0]])
    assert states.counts == {"unchanged": 1, "extended": 0, "read": 501}


def test_no_room_at_all_is_a_fresh_pass():
    states = make_states(MODELS["hybrid"], megabytes=0)
    for _ in range(2):
        states.encode([history(1, 2, 3, 4, 5)])
    assert states.counts["read"] == 2

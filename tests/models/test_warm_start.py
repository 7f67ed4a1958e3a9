"""What carries over from one catalogue's model to another's, and what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig
from recsys.data.collate import collate_histories
from recsys.data.tokenize import load_tokenizer
from recsys.models.backbone import load_text_encoder, pad_tokens
from recsys.models.build import ModelShape, build_model, save_model
from recsys.models.item_encoder import UNSEEN, ItemInputs
from recsys.models.recommender_model import RecommenderModel
from recsys.models.warm_start import (
    check_start,
    event_rows,
    load_initial_weights,
    read_whitening,
)
from recsys.schema import History

TEXTS = [[2, 6, 9, 3], [2, 7, 10, 11, 3], [2, 8, 3], [2, 12, 13, 3], [2, 3]]
EVENTS = ["view", "cart", "purchase"]
OTHER_EVENTS = ["purchase", "wish", "view", "cart"]
TEXT_SIZE = 16
"""Width of the tiny backbone."""


def config(backbone: str, **changes) -> ModelConfig:
    told = {"embedding_size": 16, "num_layers": 1, "projection_size": 16, "dropout": 0.0}
    return ModelConfig(backbone=backbone, **told | changes)


def shape(num_items: int, num_events: int, max_history: int = 6) -> ModelShape:
    return ModelShape(
        num_items=num_items, max_history=max_history, num_events=num_events, text_size=TEXT_SIZE
    )


def trained(told: ModelConfig, num_items: int = len(TEXTS)) -> RecommenderModel:
    """A model with large random weights and a whitening, whose items training has seen."""
    torch.manual_seed(1)
    model = build_model(told, shape(num_items, len(EVENTS)), load_text_encoder(told)).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("text_encoder.backbone."):
            tensor.add_(torch.randn(tensor.shape) * 0.3)
    if told.item_features == "hybrid":
        model.item_encoder.train_counts.fill_(100)
        model.user_encoder.id_share.fill_(0.35)
    return model


def publish(model: RecommenderModel, told: ModelConfig, folder: Path, num_items: int) -> Artifact:
    writer = ArtifactWriter(folder, "checkpoint")
    save_model(model, writer, load_tokenizer(told.backbone))
    facts = {
        "shape": shape(num_items, len(EVENTS)).model_dump(),
        "prepare": {"events": EVENTS},
    }
    return writer.publish({"model": told.model_dump(mode="json"), "training": {}}, {}, facts)


def fresh(told: ModelConfig, num_items: int = 9, max_history: int = 8) -> RecommenderModel:
    """A model for another catalogue, as training builds it."""
    torch.manual_seed(2)
    text = None if told.tuning == "frozen" else load_text_encoder(told)
    return build_model(told, shape(num_items, len(OTHER_EVENTS), max_history), text).eval()


@torch.no_grad()
def unseen_vectors(model: RecommenderModel, text: torch.Tensor) -> torch.Tensor:
    return model.encode_items(ItemInputs(torch.full((len(text),), UNSEEN), text=text))


@torch.no_grad()
def user_vectors(model: RecommenderModel, items: torch.Tensor, events: list[int]) -> torch.Tensor:
    history = History(np.array([0, 2, 1]), np.full(3, -1), np.array(events))
    batch = collate_histories([history], 6)
    return model.encode_users(items[batch.item_indexes], batch)


@pytest.fixture
def text(tiny_backbone) -> torch.Tensor:
    return torch.randn(len(TEXTS), TEXT_SIZE, generator=torch.Generator().manual_seed(0))


KINDS = [
    {},
    {"item_features": "text"},
    {"user_encoder": "hstu", "use_time": True},
    {"user_encoder": "gru", "use_calendar": True, "use_repeats": True, "learn_temperature": True},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
class TestCarriedOver:
    def both(self, tiny_backbone, tmp_path, changes) -> tuple[RecommenderModel, RecommenderModel]:
        told = config(tiny_backbone, **changes)
        source, model = trained(told), fresh(told)
        checkpoint = publish(source, told, tmp_path / "checkpoint", len(TEXTS))
        load_initial_weights(model, checkpoint, OTHER_EVENTS)
        return source, model

    def test_new_items_and_users_have_the_vectors_of_the_checkpoint(
        self, tiny_backbone, tmp_path, changes, text
    ):
        source, model = self.both(tiny_backbone, tmp_path, changes)
        items = unseen_vectors(source, text)
        torch.testing.assert_close(unseen_vectors(model, text), items)
        by_name = user_vectors(model, items, [0, 3, 2])  # purchase, cart, view
        torch.testing.assert_close(by_name, user_vectors(source, items, [2, 1, 0]))

    def test_a_learned_temperature_goes_on(self, tiny_backbone, tmp_path, changes):
        source, model = self.both(tiny_backbone, tmp_path, changes)
        torch.testing.assert_close(model.temperature(), source.temperature())

    def test_an_event_that_is_new_counts_as_the_first(self, tiny_backbone, tmp_path, changes, text):
        source, model = self.both(tiny_backbone, tmp_path, changes)
        items = unseen_vectors(source, text)
        wished = user_vectors(model, items, [1, 1, 1])
        torch.testing.assert_close(wished, user_vectors(source, items, [0, 0, 0]))
        assert not torch.allclose(wished, user_vectors(source, items, [2, 2, 2]), atol=1e-3)

    def test_tables_of_items_stay_as_they_were(self, tiny_backbone, tmp_path, changes):
        _, model = self.both(tiny_backbone, tmp_path, changes)
        state = fresh(config(tiny_backbone, **changes)).state_dict()
        of_items = [n for n in state if n.endswith(("table.weight", "train_counts"))]
        assert len(of_items) == (0 if changes.get("item_features") == "text" else 2)
        assert all(torch.equal(model.state_dict()[name], state[name]) for name in of_items)


def test_positions_that_both_have_are_carried_over(tiny_backbone, tmp_path):
    told = config(tiny_backbone)
    source = trained(told)
    checkpoint = publish(source, told, tmp_path / "checkpoint", len(TEXTS))
    for longest in (4, 8):
        model, before = fresh(told, max_history=longest), fresh(told, max_history=longest)
        load_initial_weights(model, checkpoint, OTHER_EVENTS)
        ours, theirs = (m.user_encoder.text.position.weight for m in (model, source))
        both = min(longest, 6)
        assert torch.equal(ours[:both], theirs[:both])
        assert torch.equal(ours[both:], before.user_encoder.text.position.weight[both:])


def test_a_model_with_a_text_encoder_whitens_as_the_checkpoint(tiny_backbone, tmp_path):
    told = config(tiny_backbone, tuning="full")
    source = trained(config(tiny_backbone))
    checkpoint = publish(source, config(tiny_backbone), tmp_path / "checkpoint", len(TEXTS))
    check_start(told, checkpoint)
    model = fresh(told)
    load_initial_weights(model, checkpoint, OTHER_EVENTS)
    assert source.text_encoder is not None
    assert model.text_encoder is not None
    with torch.no_grad():
        ours, theirs = (m.text_encoder(pad_tokens(TEXTS)) for m in (model, source))
    torch.testing.assert_close(ours, theirs)
    mean, whitening = read_whitening(checkpoint)
    assert torch.equal(mean, source.text_encoder.whitening_mean)
    assert torch.equal(whitening, source.text_encoder.whitening)


def test_event_rows_follow_the_names(tiny_backbone, tmp_path):
    told = config(tiny_backbone)
    checkpoint = publish(trained(told), told, tmp_path / "checkpoint", len(TEXTS))
    assert event_rows(checkpoint, OTHER_EVENTS).tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"num_layers": 2}, "layers"), ({"projection_size": 8}, "item_encoder.text.projection.0")],
)
def test_a_model_of_another_shape_is_refused_and_left_as_it_was(
    tiny_backbone, tmp_path, changes, named
):
    told = config(tiny_backbone)
    checkpoint = publish(trained(told), told, tmp_path / "checkpoint", len(TEXTS))
    model = fresh(config(tiny_backbone, **changes))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=named):
        load_initial_weights(model, checkpoint, OTHER_EVENTS)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class TestCheckStart:
    @pytest.mark.parametrize("changes", [{}, {"tuning": "lora", "dropout": 0.3, "id_rows": 7}])
    def test_what_changes_no_meaning_may_differ(self, tiny_backbone, tmp_path, changes):
        told = config(tiny_backbone)
        checkpoint = publish(trained(told), told, tmp_path / "checkpoint", len(TEXTS))
        check_start(config(tiny_backbone, **changes), checkpoint)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"item_features": "id"}, "nothing but single items"),
            ({"num_heads": 4}, "model.num_heads is 4, not 2"),
            ({"whiten": False, "pooling": "last"}, "pooling is 'last', not 'mean'.*whiten"),
        ],
    )
    def test_other_settings_are_named(self, tiny_backbone, tmp_path, changes, message):
        told = config(tiny_backbone)
        checkpoint = publish(trained(told), told, tmp_path / "checkpoint", len(TEXTS))
        with pytest.raises(ValueError, match=message):
            check_start(config(tiny_backbone, **changes), checkpoint)

    def test_a_tuned_language_model_is_refused(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone, tuning="full")
        checkpoint = publish(trained(told), told, tmp_path / "checkpoint", len(TEXTS))
        with pytest.raises(ValueError, match="tuning 'full'"):
            check_start(told, checkpoint)

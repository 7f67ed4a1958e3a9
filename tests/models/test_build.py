import json
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import ModelConfig, TrainingConfig
from recsys.data.collate import collate_histories
from recsys.data.tokenize import load_tokenizer
from recsys.models.backbone import load_text_encoder, merge_lora, pad_tokens
from recsys.models.build import (
    BACKBONE,
    USER_BACKBONE,
    WEIGHTS,
    ModelShape,
    build_model,
    load_model,
    save_model,
    text_size,
)
from recsys.models.item_encoder import HybridItemEncoder, ItemInputs
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History

TEXTS = [[2, 6, 9, 3], [2, 7, 10, 11, 3], [2, 8, 3], [2, 12, 13, 3], [2, 3]]
NUM_ITEMS = len(TEXTS)
TRAIN_COUNTS = [0, 1, 300, 3, 16_777_216]
HISTORIES = [History.of_items([0, 1, 2]), History.of_items([4]), History.of_items([3, 3, 1, 0])]


def config(backbone: str, **changes) -> ModelConfig:
    told = {"embedding_size": 16, "num_heads": 2, "num_layers": 1, "projection_size": 16}
    return ModelConfig(backbone=backbone, lora_rank=2, **told | {"dropout": 0.0} | changes)


def shape_of(model: ModelConfig) -> ModelShape:
    return ModelShape(num_items=NUM_ITEMS, max_history=6, num_events=2, text_size=text_size(model))


def trained(model: ModelConfig, seed: int = 0) -> RecommenderModel:
    """A model with random weights in every tensor, whitening too, as `save_model` gets it."""
    torch.manual_seed(seed)
    text = None
    if model.item_features != "id":
        text = load_text_encoder(model)
        text.backbone = merge_lora(text.backbone)
    built = build_model(model, shape_of(model), text).eval()
    for name, tensor in built.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("text_encoder.backbone."):
            tensor.add_(torch.randn(tensor.shape) * 0.3)
    if isinstance(built.item_encoder, HybridItemEncoder):
        built.item_encoder.train_counts.copy_(torch.tensor(TRAIN_COUNTS))
        built.user_encoder.id_share.fill_(0.35)
    return built


def save(model: RecommenderModel, told: ModelConfig, backbone: str, folder: Path) -> Artifact:
    writer = ArtifactWriter(folder, "checkpoint")
    save_model(model, writer, load_tokenizer(backbone))
    writer.publish(
        {"model": told.model_dump(mode="json"), "training": TrainingConfig().model_dump()},
        {"dataset": "0" * 64},
        {"shape": shape_of(told).model_dump(), "prepare": {"events": ["view", "purchase"]}},
    )
    return open_artifact(folder, "checkpoint")


def item_vectors(model: RecommenderModel) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_items(ItemInputs(torch.arange(NUM_ITEMS), tokens=pad_tokens(TEXTS)))


def user_vectors(model: RecommenderModel, items: torch.Tensor) -> torch.Tensor:
    batch = collate_histories(HISTORIES, 6)
    with torch.no_grad():
        return model.encode_users(items[batch.item_indexes], batch)


KINDS = {
    "hybrid": {},
    "hybrid with time": {"use_time": True, "num_layers": 2, "pooling": "last"},
    "hybrid in bf16": {"backbone_precision": "bf16"},
    "hybrid with shared rows": {"id_rows": 2},
    "text": {"item_features": "text"},
    "full": {"tuning": "full"},
    "lora": {"tuning": "lora"},
    "id": {"item_features": "id"},
    "hstu": {"user_encoder": "hstu", "use_time": True},
    "gru": {"user_encoder": "gru", "num_layers": 2},
    "all features": {"use_time": True, "use_calendar": True, "use_repeats": True},
    "learned temperature": {"learn_temperature": True},
    "recomputed activations": {"tuning": "full", "activation_checkpointing": True},
}


# peft 0.21 still asks transformers 5 for a property under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_bit_equal_outputs(tiny_backbone, tmp_path, kind):
    told = config(tiny_backbone, **KINDS[kind])
    model = trained(told).requires_grad_(False)  # torch's GRU has another kernel where it learns
    loaded, shape = load_model(save(model, told, tiny_backbone, tmp_path / "checkpoint"))
    assert shape == shape_of(told)
    assert loaded.state_dict().keys() == model.state_dict().keys()  # LoRA stays merged
    items = item_vectors(model)
    assert torch.equal(item_vectors(loaded), items)
    assert torch.equal(user_vectors(loaded, items), user_vectors(model, items))


@pytest.mark.parametrize("item_features", ["hybrid", "id"])
@pytest.mark.parametrize("with_text", [False, True])
def test_a_checkpoint_brings_its_user_backbone_with_it(
    tiny_backbone, tiny_gpt2, tmp_path, item_features, with_text
):
    named = copytree(tiny_gpt2, tmp_path / "gpt2")
    told = config(
        tiny_backbone,
        item_features=item_features,
        user_encoder="language_model",
        user_backbone=str(named),
    )
    model = trained(told)
    checkpoint = save(model, told, tiny_backbone, tmp_path / "checkpoint")
    rmtree(named)
    assert checkpoint.names(f"{USER_BACKBONE}/") == [f"{USER_BACKBONE}/config.json"]
    loaded, _ = load_model(checkpoint, with_text)
    items = item_vectors(model)
    assert torch.equal(user_vectors(loaded, items), user_vectors(model, items))


def test_a_fresh_model_has_the_weights_of_the_user_backbone(tiny_backbone, tiny_gpt2):
    told = config(tiny_backbone, user_encoder="language_model", user_backbone=tiny_gpt2)
    model = build_model(told, shape_of(told))
    expected = AutoModel.from_pretrained(tiny_gpt2).h.state_dict()
    for half in (model.user_encoder.text, model.user_encoder.ids):
        found = half.layers.body.h.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


NEWER = [
    "activation_checkpointing",
    "learn_temperature",
    "use_calendar",
    "use_repeats",
    "user_backbone",
    "user_encoder",
]


class TestDefaults:
    """What a checkpoint without the newer options holds and computes, kept by hand."""

    def test_names_are_those_of_older_checkpoints(self, tiny_backbone):
        told = config(tiny_backbone, item_features="id", use_time=True)
        names = {name.removeprefix("user_encoder.") for name in trained(told).state_dict()}
        layer = ["norm_attention", "qkv", "out", "feed_forward.0", "feed_forward.1", "down"]
        norms_and_maps = ["norm_in", "norm_out", *(f"layers.0.{part}" for part in layer)]
        assert names == {
            "item_encoder.table.weight",
            "position.weight",
            "event.weight",
            "gap.weight",
            *(f"{part}.{kind}" for part in norms_and_maps for kind in ("weight", "bias")),
        }

    def test_a_config_without_the_newer_options_is_read(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone)
        model = trained(told)
        save(model, told, tiny_backbone, tmp_path / "checkpoint")
        path = tmp_path / "checkpoint" / "manifest.json"
        manifest = json.loads(path.read_text())
        for newer in NEWER:
            del manifest["config"]["model"][newer]
        path.write_text(json.dumps(manifest))
        loaded, _ = load_model(open_artifact(tmp_path / "checkpoint", "checkpoint"))
        items = item_vectors(model)
        assert torch.equal(user_vectors(loaded, items), user_vectors(model, items))

    @pytest.mark.parametrize(
        ("item_features", "num_parameters", "first", "last"),
        [
            ("hybrid", 2840, [0.07921903, 0.54930079], [0.13258886, 0.00440408]),
            ("id", 4080, [0.10142065, 0.18222786], [0.36847982, -0.05228418]),
            ("text", 4464, [0.28528118, 0.34165776], [0.29116657, 0.01687789]),
        ],
    )
    def test_outputs_are_as_they_were(self, item_features, num_parameters, first, last):
        told = config("none", item_features=item_features, use_time=True)
        torch.manual_seed(0)
        shape = ModelShape(num_items=6, max_history=5, num_events=2, text_size=12)
        model = build_model(told, shape).eval()
        history = History(np.arange(3), np.array([5, 90, 4000]), np.array([0, 1, 0]))
        items = torch.arange(6 * 16.0).sin().reshape(6, 16)
        batch = collate_histories([history], 5)
        with torch.no_grad():
            user = model.encode_users(normalize(items, dim=-1)[batch.item_indexes], batch)[0]
        assert sum(p.numel() for p in model.parameters()) == num_parameters
        torch.testing.assert_close(user[:2], torch.tensor(first), atol=1e-6, rtol=0)
        torch.testing.assert_close(user[-2:], torch.tensor(last), atol=1e-6, rtol=0)


def test_other_weights_give_other_outputs(tiny_backbone):
    """The round trip above would also pass if no weight mattered."""
    told = config(tiny_backbone)
    one, two = trained(told, seed=0), trained(told, seed=1)
    items = item_vectors(one)
    assert not torch.allclose(items, item_vectors(two), atol=0.1)
    assert not torch.allclose(user_vectors(one, items), user_vectors(two, items), atol=0.1)


def test_a_loaded_model_is_ready_for_inference(tiny_backbone, tmp_path):
    told = config(tiny_backbone, dropout=0.5)
    model = trained(told).train()
    loaded, _ = load_model(save(model, told, tiny_backbone, tmp_path / "checkpoint"))
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    items = item_vectors(loaded)
    assert torch.equal(user_vectors(loaded, items), user_vectors(loaded, items))


def test_a_half_precision_model_is_saved_in_float32(tiny_backbone, tmp_path):
    told = config(tiny_backbone, item_features="id")
    model = trained(told).bfloat16()
    loaded, _ = load_model(save(model, told, tiny_backbone, tmp_path / "checkpoint"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(
        loaded.user_encoder.position.weight, model.user_encoder.position.weight.float()
    )


class TestWithoutText:
    def test_same_user_vectors_and_no_language_model(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone, use_time=True)
        model = trained(told)
        loaded, shape = load_model(
            save(model, told, tiny_backbone, tmp_path / "checkpoint"), with_text=False
        )
        items = item_vectors(model)
        assert loaded.text_encoder is None
        assert not [name for name in loaded.state_dict() if name.startswith("text_encoder")]
        assert shape == shape_of(told)
        assert torch.equal(user_vectors(loaded, items), user_vectors(model, items))

    def test_the_backbone_is_not_even_read(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone)
        checkpoint = save(trained(told), told, tiny_backbone, tmp_path / "checkpoint")
        names = checkpoint.names(f"{BACKBONE}/")
        assert f"{BACKBONE}/config.json" in names
        for name in names:
            (tmp_path / "checkpoint" / name).unlink()
        assert load_model(checkpoint, with_text=False)[0].text_encoder is None

    def test_precomputed_text_vectors_give_the_same_items(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone)
        model = trained(told)
        checkpoint = save(model, told, tiny_backbone, tmp_path / "checkpoint")
        loaded, _ = load_model(checkpoint, with_text=False)
        with torch.no_grad():
            text = model.text_encoder(pad_tokens(TEXTS))
            items = loaded.encode_items(ItemInputs(torch.arange(NUM_ITEMS), text=text))
        assert torch.equal(items, item_vectors(model))


class TestWhatIsSaved:
    def test_an_id_model_has_no_backbone_files(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone, item_features="id")
        checkpoint = save(trained(told), told, tiny_backbone, tmp_path / "checkpoint")
        assert checkpoint.names() == [WEIGHTS]

    def test_a_text_model_has_its_tokenizer_with_it(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone)
        save(trained(told), told, tiny_backbone, tmp_path / "checkpoint")
        tokenizer = load_tokenizer(tmp_path / "checkpoint" / BACKBONE)
        words = "red hammer: large saw"
        assert tokenizer(words)["input_ids"] == load_tokenizer(tiny_backbone)(words)["input_ids"]

    def test_the_original_backbone_is_not_needed_again(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone)
        model = trained(told)
        folder = tmp_path / "checkpoint"
        save(model, told, tiny_backbone, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["config"]["model"]["backbone"] = str(tmp_path / "gone")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        loaded, _ = load_model(open_artifact(folder, "checkpoint"))
        assert torch.equal(item_vectors(loaded), item_vectors(model))


class TestWrongWeights:
    def test_missing_ones_are_named(self, tiny_backbone, tmp_path):
        saved = config(tiny_backbone, item_features="id")
        told = saved.model_copy(update={"num_layers": 2})
        checkpoint = save(trained(saved), told, tiny_backbone, tmp_path / "checkpoint")
        with pytest.raises(ValueError, match=r"missing \[.*user_encoder\.layers\.1\.qkv\.weight"):
            load_model(checkpoint)

    def test_unexpected_ones_are_named(self, tiny_backbone, tmp_path):
        saved = config(tiny_backbone, item_features="id", use_time=True)
        told = saved.model_copy(update={"use_time": False})
        checkpoint = save(trained(saved), told, tiny_backbone, tmp_path / "checkpoint")
        with pytest.raises(ValueError, match=r"unexpected \['user_encoder\.gap\.weight'\]"):
            load_model(checkpoint)

    def test_whitening_must_be_there(self, tiny_backbone, tmp_path):
        told = config(tiny_backbone)
        writer = ArtifactWriter(tmp_path / "checkpoint", "checkpoint")
        model = trained(told)
        text, model.text_encoder = model.text_encoder, None
        save_model(model, writer, load_tokenizer(tiny_backbone))
        text.backbone.save_pretrained(tmp_path / "backbone")
        writer.add_directory(tmp_path / "backbone", BACKBONE)
        checkpoint = writer.publish(
            {"model": told.model_dump()}, {}, {"shape": shape_of(told).model_dump()}
        )
        with pytest.raises(ValueError, match=r"missing \[.*text_encoder\.whitening"):
            load_model(checkpoint)
        assert load_model(checkpoint, with_text=False)[0].text_encoder is None

    def test_another_size_is_refused(self, tiny_backbone, tmp_path):
        saved = config(tiny_backbone, item_features="id")
        told = saved.model_copy(update={"embedding_size": 32})
        checkpoint = save(trained(saved), told, tiny_backbone, tmp_path / "checkpoint")
        with pytest.raises((ValueError, RuntimeError), match=r"item_encoder\.table\.weight"):
            load_model(checkpoint)


class TestBuildModel:
    def test_weights_follow_the_global_seed(self, tiny_backbone):
        told = config(tiny_backbone)
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(build_model(told, shape_of(told)).state_dict())
        name = "item_encoder.text.projection.0.weight"
        assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
        assert not torch.equal(states[0][name], states[2][name])

    def test_text_size_is_the_backbones_width(self, tiny_backbone):
        assert text_size(config(tiny_backbone)) == 16
        assert text_size(config(tiny_backbone, item_features="id")) == 0

    @pytest.mark.parametrize("kind", ["hybrid", "text", "id"])
    def test_item_vectors_have_length_one(self, tiny_backbone, kind):
        vectors = item_vectors(trained(config(tiny_backbone, item_features=kind)))
        assert vectors.shape == (NUM_ITEMS, 16)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(NUM_ITEMS))

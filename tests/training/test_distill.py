"""Distillation: what the student starts from, what it learns, and a checkpoint like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3Model

from recsys.artifact import Artifact
from recsys.config import DistillationConfig, IndexConfig, ModelConfig
from recsys.engine.recommender import Event, Query, Recommender
from recsys.index.build import build_index
from recsys.models.backbone import TextEncoder, fit_whitening, load_text_encoder, pad_tokens
from recsys.models.build import load_model
from recsys.training.distill import distill, encode, first_layers, teach, vector_loss

TEXTS = [np.random.default_rng(row).integers(6, 20, 3 + row % 9).tolist() for row in range(120)]


@pytest.fixture
def teacher(tiny_backbone: str) -> TextEncoder:
    """A two-layer encoder whose text vectors are whitened, and whose second layer does much."""
    encoder = load_text_encoder(ModelConfig(backbone=tiny_backbone)).eval().requires_grad_(False)
    for name, weights in encoder.backbone.named_parameters():
        if "encoder.layer" in name and weights.ndim == 2:
            weights.mul_(10)
    encoder.set_whitening(*fit_whitening(encode(encoder, TEXTS)))
    return encoder


def test_the_student_starts_as_the_first_layers_of_its_teacher(teacher):
    student = first_layers(teacher, 1)
    assert len(student.backbone.encoder.layer) == 1
    ours, theirs = student.backbone.state_dict(), teacher.backbone.state_dict()
    assert set(ours) < set(theirs)
    assert all(torch.equal(weights, theirs[name]) for name, weights in ours.items())
    assert torch.equal(student.whitening, teacher.whitening)


def test_a_decoder_whose_layers_have_types_is_cut_too():
    config = Qwen3Config(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    torch.manual_seed(0)
    decoder = TextEncoder(Qwen3Model(config).eval(), 16, "last")
    student = first_layers(decoder, 2)
    assert len(student.backbone.layers) == len(student.backbone.config.layer_types) == 2
    assert student.eval()(pad_tokens([[3, 4, 5]])).shape == (1, 16)


def test_vectors_come_in_the_order_of_their_texts(teacher):
    one_by_one = torch.cat([teacher(pad_tokens([text])) for text in TEXTS])
    torch.testing.assert_close(encode(teacher, TEXTS), one_by_one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_the_student_comes_nearer_on_texts_it_never_saw(teacher, loss):
    config = DistillationConfig(
        num_layers=1, epochs=15, batch_size=16, learning_rate=3e-3, loss=loss
    )
    before = [p.clone() for p in teacher.parameters()]
    lesson = teach(config, teacher, TEXTS)
    facts = lesson.facts
    assert facts["held_out_items"] == 12
    assert facts["held_out_cosine"] > facts["held_out_cosine_untaught"] + 0.1
    assert facts["parameters"] < facts["teacher_parameters"]
    assert lesson.log[-1]["loss"] < lesson.log[0]["loss"]
    assert all(torch.equal(p, q) for p, q in zip(before, teacher.parameters(), strict=True))


def test_held_out_texts_are_not_learned_from(teacher):
    """Whatever the held-out texts hold, the student is the same."""
    config = DistillationConfig(num_layers=1, epochs=1, batch_size=16)
    held_out = torch.randperm(120, generator=torch.Generator().manual_seed(0))[:12].tolist()
    other = [[7] * len(text) if row in held_out else text for row, text in enumerate(TEXTS)]
    students = [teach(config, teacher, texts).student for texts in (TEXTS, other)]
    pairs = zip(students[0].parameters(), students[1].parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_losses_by_hand():
    found, right = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    assert vector_loss(found, right, "cosine").item() == pytest.approx(0.5)
    assert vector_loss(found, right, "mse").item() == pytest.approx((4 + 0 + 16 + 4) / 4)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_student_indexes_and_answers_like_any_other(
    tmp_path: Path, toy_dataset: Artifact, toy_checkpoint: Artifact
) -> None:
    config = DistillationConfig(num_layers=1, epochs=2, batch_size=16)
    student = distill(config, toy_dataset, toy_checkpoint, str(tmp_path / "student"))
    assert student.manifest.parents["teacher"] == toy_checkpoint.digest
    assert student.manifest.facts["distillation"]["held_out_items"] == 6
    ours, theirs = load_model(student)[0], load_model(toy_checkpoint)[0]
    assert len(ours.text_encoder.backbone.encoder.layer) == 1  # pyright: ignore
    for one, two in zip(
        ours.user_encoder.parameters(), theirs.user_encoder.parameters(), strict=True
    ):
        assert torch.equal(one, two)
    index = build_index(
        IndexConfig(precision="int8"), toy_dataset, student, str(tmp_path / "index")
    )
    assert index.manifest.facts["precision"] == "int8"
    recommender = Recommender.load(student, index, filter_seen=True)
    known = toy_dataset.read_table("items.parquet")["item_id"][0].as_py()
    answer = recommender.recommend([Query([Event(known)], top_k=5)])[0]
    assert len(answer.items) == 5
    with pytest.raises(ValueError, match="must be less than the 2 layers"):
        distill(
            DistillationConfig(num_layers=2), toy_dataset, toy_checkpoint, str(tmp_path / "none")
        )

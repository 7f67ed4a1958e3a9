"""The memory estimate, against real models: counted, trained on one rank, and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, Qwen3Config

from recsys.config import ModelConfig, TrainingConfig
from recsys.models.backbone import load_text_encoder
from recsys.models.build import ModelShape, add_heads, build_model, text_size
from recsys.schema import Batch
from recsys.training.memory import (
    DataSize,
    Layers,
    Memory,
    count_weights,
    estimate_memory,
    gradients_bytes,
    states_bytes,
    workload,
)
from recsys.training.zero import start_engine
from tests.training.tiny_run import one_rank

# DeepSpeed 0.19.8 imports torch's compiler and calls collectives by their old names.
DEEPSPEED_WARNINGS = (
    r"ignore:`torch\.jit\.:DeprecationWarning",
    r"ignore:`torch\.distributed\.:FutureWarning",
)
pytestmark = pytest.mark.filterwarnings(
    *DEEPSPEED_WARNINGS,
    # peft 0.21 still asks transformers 5 for a property under its old name.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
ONE = TrainingConfig(num_workers=1, global_batch_size=4)
DATA = DataSize(items=1_000, windows=500, targets=4_000)
KINDS: dict[str, dict[str, Any]] = {
    "id": {"item_features": "id"},
    "frozen": {"use_time": True, "learn_temperature": True},
    "text, hstu": {"item_features": "text", "user_encoder": "hstu"},
    "lora": {"tuning": "lora", "lora_rank": 3},
    "full": {"tuning": "full", "user_encoder": "gru"},
}


def config_of(backbone: str, **changes: Any) -> ModelConfig:
    told = {"embedding_size": 16, "num_heads": 2, "num_layers": 2, "projection_size": 24}
    return ModelConfig(backbone=backbone, **{**told, **changes})


def shape_of(model: ModelConfig) -> ModelShape:
    return ModelShape(num_items=50, max_history=10, num_events=3, text_size=text_size(model))


def training_of(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({**ONE.model_dump(), **changes})


def estimate(model: ModelConfig, training: TrainingConfig) -> Memory:
    return estimate_memory(model, training, shape_of(model), DATA, max_item_tokens=16)


def write_qwen_8b(folder: Path) -> str:
    """The config.json of Qwen3-Embedding-8B's sizes, and nothing else, in this folder."""
    Qwen3Config(
        vocab_size=151_665,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
    ).save_pretrained(folder)
    return str(folder)


class TestWeights:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_count_is_that_of_the_model_that_is_trained(self, tiny_backbone, kind):
        config = config_of(tiny_backbone, **KINDS[kind])
        shape, training = shape_of(config), training_of(probability_weight=1.0)
        tuned = config.tuning != "frozen"
        model = build_model(config, shape, load_text_encoder(config) if tuned else None)
        add_heads(model, training.heads, config, shape)
        found = count_weights(config, training, shape)
        assert found.learning == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert found.total == sum(p.numel() for p in model.parameters())

    def test_a_user_encoder_that_is_a_decoder_is_counted_in_both_halves(
        self, tmp_path, tiny_backbone
    ):
        GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30, n_positions=32).save_pretrained(
            tmp_path
        )
        config = config_of(
            tiny_backbone, user_encoder="language_model", user_backbone=str(tmp_path)
        )
        architecture = GPT2Config.from_pretrained(tmp_path)
        model = build_model(config, shape_of(config), user_architecture=architecture)
        found = count_weights(config, ONE, shape_of(config))
        assert found.learning == sum(p.numel() for p in model.parameters())

    def test_eight_billion_weights_are_counted_without_their_memory(self, tmp_path):
        model = ModelConfig(backbone=write_qwen_8b(tmp_path), tuning="lora", lora_rank=16)
        found = count_weights(model, ONE, shape_of(model))
        attention, mlp = 4096 * (2 * 4096 + 2 * 1024), 3 * 4096 * 12288
        norms = 2 * 4096 + 2 * 128
        assert found.frozen == 151_665 * 4096 + 36 * (attention + mlp + norms) + 4096
        a_layer = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288)
        plain = count_weights(model.model_copy(update={"tuning": "frozen"}), ONE, shape_of(model))
        assert found.learning - plain.learning == 36 * 16 * a_layer


@pytest.fixture(scope="module")
def rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with one_rank(tmp_path_factory.mktemp("rank")):
        yield


@pytest.mark.usefixtures("rank")
class TestStates:
    @pytest.mark.parametrize(
        ("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (2, "bf16"), (3, "bf16")]
    )
    def test_they_are_those_that_deepspeed_holds(self, stage, precision):
        training = training_of(zero_stage=stage, precision=precision)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
        learning = sum(p.numel() for p in model.parameters())
        engine = start_engine(model, training, total_steps=3)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        engine.backward(engine(torch.ones(4, 64, dtype=dtype)).float().sum())
        engine.step()
        held = held_states(engine, stage)
        assert held == pytest.approx(states_bytes(training, learning), rel=0.001)


def held_states(engine: Any, stage: int) -> int:
    """Bytes of Adam's moments, and of the fp32 copies where ZeRO made some."""
    optimizer = engine.optimizer if stage == 0 else engine.optimizer.optimizer
    held = [t for state in optimizer.state.values() for t in state.values() if t.numel() > 1]
    if stage in (1, 2):
        held += engine.optimizer.single_partition_of_fp32_groups
    if stage == 3:
        held += engine.optimizer.fp32_partitioned_groups_flat
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


class TestShares:
    """The table of the ZeRO paper: a model of 7.5e9 weights on 64 ranks, in gigabytes."""

    @pytest.mark.parametrize(("stage", "states", "gradients"), [(1, 1.4, 15.0), (2, 1.4, 0.23)])
    def test_by_hand(self, stage, states, gradients):
        training = TrainingConfig(num_workers=64, global_batch_size=64, zero_stage=stage)
        learning = 7_500_000_000
        assert states_bytes(training, learning) / 1e9 == pytest.approx(states, rel=0.01)
        assert gradients_bytes(training, learning) / 1e9 == pytest.approx(gradients, rel=0.03)

    def test_each_stage_takes_no_more_than_the_one_below(self, tiny_backbone):
        config = config_of(tiny_backbone, tuning="full")
        told = {"num_workers": 4, "precision": "fp32"}
        found = [estimate(config, training_of(zero_stage=stage, **told)) for stage in range(4)]
        kept = [m.weights + m.gradients + m.optimizer for m in found]
        # fp32 copies are ZeRO's own, so that stage 0 may be below stage 1 of few ranks.
        assert kept[1] > kept[2] > kept[3]

    def test_offloading_moves_to_the_host_what_it_takes_from_the_gpu(self, tiny_backbone):
        config = config_of(tiny_backbone, tuning="full")
        told: dict[str, Any] = {"use_gpu": True, "zero_stage": 3}
        without = estimate(config, training_of(**told))
        moved = estimate(
            config, training_of(**told, offload_optimizer="cpu", offload_parameters="cpu")
        )
        assert (without.host, moved.optimizer, moved.gradients) == (0, 0, 0)
        buffers = count_weights(config, ONE, shape_of(config)).buffers
        assert moved.weights == buffers
        assert moved.host >= without.optimizer + without.weights - buffers
        # It starts with the whole model on the GPU all the same.
        assert moved.device_start == without.device_start

    def test_parts_add_gradients_up_in_fp32(self):
        whole, parts = training_of(zero_stage=2), training_of(zero_stage=2, accumulation=4)
        assert gradients_bytes(parts, 1_000) == 2 * gradients_bytes(whole, 1_000) == 4_000


class TestWork:
    def test_all_items_are_candidates_without_sampling(self):
        shape = ModelShape(num_items=1_000, max_history=10, num_events=1, text_size=0)
        found = workload(training_of(global_batch_size=8, accumulation=2), shape, DATA)
        # 4,000 targets in 500 windows are 8 a window.
        assert (found.windows, found.positions, found.candidates) == (4, 32, 1_000)

    def test_sampled_candidates_are_those_of_the_whole_step_and_the_own_histories(self):
        shape = ModelShape(num_items=1_000, max_history=10, num_events=1, text_size=0)
        told = {"num_workers": 2, "global_batch_size": 8, "accumulation": 2, "num_negatives": 100}
        found = workload(training_of(**told), shape, DATA)
        assert found.candidates == 100 + 8 * 8 + 2 * 10
        few = workload(training_of(**told), shape.model_copy(update={"num_items": 90}), DATA)
        assert few.candidates == 90

    def test_accumulation_and_chunks_save_scores(self, tiny_backbone):
        config = config_of(tiny_backbone)
        told = {"global_batch_size": 64}
        whole = estimate(config, training_of(**told))
        parts = estimate(config, training_of(**told, accumulation=8))
        chunks = estimate(config, training_of(**told, loss_chunk=16))
        assert parts.scores * 8 == whole.scores
        assert parts.activations < whole.activations
        assert chunks.scores < whole.scores / 8

    def test_scores_by_hand(self):
        model = ModelConfig(item_features="id", embedding_size=16)
        shape = ModelShape(num_items=1_000, max_history=10, num_events=1, text_size=0)
        found = estimate_memory(model, training_of(global_batch_size=8), shape, DATA, 16)
        assert found.scores == 3 * 64 * 1_000 * 4


class TestActivations:
    def test_a_layer_by_hand(self):
        # Two texts of 8 tokens, width 32, 4 heads: s b h (34 + 5 a s / h) = 16 * 32 * (34 + 5).
        layers = Layers(number=3, width=32, heads=4)
        assert layers.activations(16, 8, size=2, recomputed=False) == 3 * 16 * 32 * 39
        assert layers.activations(16, 8, size=4, recomputed=False) == 6 * 16 * 32 * 39
        once = 2 * 16 * 32 * 3 + 16 * 32 * 39
        assert layers.activations(16, 8, size=2, recomputed=True) == once

    def test_what_a_user_encoder_keeps_for_backward_is_near_the_estimate(self):
        model = ModelConfig(
            item_features="id", embedding_size=64, num_heads=2, num_layers=4, dropout=0.1
        )
        shape = ModelShape(num_items=50, max_history=32, num_events=1, text_size=0)
        encoder = build_model(model, shape).user_encoder.train()
        kept = kept_for_backward(encoder, torch.randn(16, 32, 64, requires_grad=True))
        said = Layers(4, 64, 2).activations(16 * 32, 32, size=4, recomputed=False)
        assert said / 2 < kept < said * 1.5


def kept_for_backward(encoder: torch.nn.Module, items: torch.Tensor) -> int:
    """Bytes that autograd saves in a forward pass, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    zeros = torch.zeros(items.shape[:2], dtype=torch.int64)
    batch = Batch(zeros, zeros, zeros, torch.full((len(items),), items.shape[1]), zeros)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = encoder(items, batch)
    assert found.requires_grad
    return sum(size for place, size in seen.items() if place not in weights)


def test_a_backbone_that_is_not_there_is_named(tmp_path: Path):
    model = ModelConfig(backbone="package:no_such_package/model", tuning="lora")
    shape = ModelShape(num_items=5, max_history=4, num_events=1, text_size=8)
    with pytest.raises(ValueError, match="no_such_package"):
        count_weights(model, ONE, shape)

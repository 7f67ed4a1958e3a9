import math

import pytest
import torch
from torch import nn

from recsys.config import ModelConfig, TrainingConfig
from recsys.models.backbone import load_text_encoder
from recsys.models.build import ModelShape, build_model, text_size
from recsys.models.recommender_model import RecommenderModel
from recsys.training.optimizer import learning_rate_factor, parameter_groups
from recsys.training.zero import deepspeed_config

TRAINING = TrainingConfig(
    num_workers=2,
    global_batch_size=24,
    learning_rate=0.004,
    backbone_learning_rate=0.0003,
    weight_decay=0.02,
    max_grad_norm=0.5,
)
REST, BACKBONE = TRAINING.learning_rate, TRAINING.backbone_learning_rate
DECAY = TRAINING.weight_decay

# peft 0.21 still asks transformers 5 for a property under its old name.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


def make_model(backbone: str, **changes) -> RecommenderModel:
    """A model as it trains: with a text encoder only where the backbone is tuned."""
    told = {"embedding_size": 16, "num_heads": 2, "num_layers": 1, "projection_size": 16}
    config = ModelConfig(backbone=backbone, dropout=0.0, lora_rank=2, **told, **changes)
    shape = ModelShape(num_items=5, max_history=6, num_events=2, text_size=text_size(config))
    tuned = config.tuning != "frozen"
    return build_model(config, shape, load_text_encoder(config) if tuned else None)


def settings_by_name(model: nn.Module) -> dict[str, tuple[float, float]]:
    """(rate, decay) of each parameter in the groups; each may be there only once."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in parameter_groups(model, TRAINING):
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in found, f"{name} is in two groups"
            found[name] = (group["lr"], group["weight_decay"])
    return found


KINDS = {
    "id": {"item_features": "id"},
    "text": {"item_features": "text"},
    "frozen": {"use_time": True},
    "lora": {"tuning": "lora"},
    "full": {"tuning": "full"},
}


class TestParameterGroups:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_trainable_parameter_is_in_exactly_one_group(self, tiny_backbone, kind):
        model = make_model(tiny_backbone, **KINDS[kind])
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        assert settings_by_name(model).keys() == trainable

    def test_frozen_parameters_are_left_out(self, tiny_backbone):
        model = make_model(tiny_backbone, tuning="full")
        model.user_encoder.requires_grad_(False)
        model.text_encoder.backbone.embeddings.requires_grad_(False)
        found = settings_by_name(model)
        assert found
        assert not [name for name in found if "user_encoder" in name or "embeddings" in name]

    def test_lora_leaves_the_backbones_own_weights_out(self, tiny_backbone):
        found = settings_by_name(make_model(tiny_backbone, tuning="lora"))
        of_backbone = [name for name in found if name.startswith("text_encoder.")]
        assert of_backbone
        assert all("lora_" in name for name in of_backbone)

    @pytest.mark.parametrize("tuning", ["lora", "full"])
    def test_the_backbone_has_its_own_rate(self, tiny_backbone, tuning):
        found = settings_by_name(make_model(tiny_backbone, tuning=tuning))
        for name, (rate, _) in found.items():
            assert rate == (BACKBONE if name.startswith("text_encoder.") else REST)
        assert {rate for rate, _ in found.values()} == {REST, BACKBONE}

    def test_decay_by_hand(self, tiny_backbone):
        model = make_model(tiny_backbone, tuning="full", use_time=True)
        found = settings_by_name(model)
        prefix = "text_encoder.backbone."
        decayed = {
            "item_encoder.text.projection.0.weight": DECAY,
            "item_encoder.text.projection.0.bias": 0.0,
            "item_encoder.text.projection.2.weight": DECAY,
            "item_encoder.ids.table.weight": 0.0,
            "user_encoder.ids.position.weight": 0.0,
            "user_encoder.ids.layers.0.down.weight": DECAY,
            "user_encoder.text.norm_in.weight": 0.0,
            "user_encoder.text.norm_in.bias": 0.0,
            "user_encoder.text.position.weight": 0.0,
            "user_encoder.text.event.weight": 0.0,
            "user_encoder.text.gap.weight": 0.0,
            "user_encoder.text.layers.0.qkv.weight": DECAY,
            "user_encoder.text.layers.0.qkv.bias": 0.0,
            "user_encoder.text.layers.0.norm_attention.weight": 0.0,
            "user_encoder.text.layers.0.feed_forward.0.weight": 0.0,
            "user_encoder.text.layers.0.feed_forward.1.weight": DECAY,
            "user_encoder.text.layers.0.down.weight": DECAY,
            f"{prefix}embeddings.word_embeddings.weight": 0.0,
            f"{prefix}embeddings.position_embeddings.weight": 0.0,
            f"{prefix}embeddings.LayerNorm.weight": 0.0,
            f"{prefix}encoder.layer.0.attention.self.query.weight": DECAY,
            f"{prefix}encoder.layer.0.attention.self.query.bias": 0.0,
            f"{prefix}encoder.layer.1.output.LayerNorm.weight": 0.0,
            f"{prefix}encoder.layer.1.output.dense.weight": DECAY,
        }
        assert {name: found[name][1] for name in decayed} == decayed

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_norm_bias_or_embedding_is_decayed_anywhere(self, tiny_backbone, kind):
        model = make_model(tiny_backbone, **KINDS[kind])
        found = settings_by_name(model)
        spared = {
            f"{path}.{name}"
            for path, module in model.named_modules()
            for name, _ in module.named_parameters(recurse=False)
            if isinstance(module, nn.Embedding | nn.LayerNorm) or name == "bias"
        }
        assert {name for name, (_, decay) in found.items() if not decay} == spared & found.keys()

    def test_the_id_table_is_not_decayed(self, tiny_backbone):
        found = settings_by_name(make_model(tiny_backbone, item_features="id"))
        assert found["item_encoder.table.weight"] == (REST, 0.0)

    def test_no_group_is_empty_and_adamw_takes_them(self, tiny_backbone):
        groups = parameter_groups(make_model(tiny_backbone, tuning="lora"), TRAINING)
        assert all(group["params"] for group in groups)
        settings = [(group["lr"], group["weight_decay"]) for group in groups]
        assert len(settings) == len(set(settings)) == 3  # LoRA has no biases or embeddings
        torch.optim.AdamW(groups)


class TestLearningRate:
    """100 steps, of which 10 are warm-up."""

    def at(self, step: int) -> float:
        return learning_rate_factor(step, total_steps=100, warmup_share=0.1)

    def test_first_step(self):
        assert self.at(0) == pytest.approx(0.1)

    def test_middle_of_the_warm_up(self):
        assert self.at(4) == pytest.approx(0.5)

    def test_end_of_the_warm_up(self):
        assert self.at(8) == pytest.approx(0.9)
        assert self.at(9) == pytest.approx(1.0)
        assert self.at(10) == pytest.approx(1.0)

    def test_half_way_down(self):
        assert self.at(55) == pytest.approx(0.01 + 0.99 / 2)

    def test_a_third_of_the_way_down(self):
        assert self.at(40) == pytest.approx(0.01 + 0.99 * 0.75)  # cos(60 degrees) = 1/2

    def test_last_step_and_beyond(self):
        last = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 89 / 90))
        assert self.at(99) == pytest.approx(last)
        assert self.at(99) < 0.0105
        assert self.at(100) == pytest.approx(0.01)
        assert self.at(5_000) == pytest.approx(0.01)

    def test_it_rises_and_then_falls(self):
        factors = [self.at(step) for step in range(101)]
        assert factors[:10] == sorted(factors[:10])
        assert factors[10:] == sorted(factors[10:], reverse=True)
        assert max(factors) == 1.0
        assert min(factors) > 0.0

    @pytest.mark.parametrize("total_steps", [1, 2, 7])
    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
    def test_short_runs_have_a_rate_at_every_step(self, total_steps, share):
        factors = [learning_rate_factor(step, total_steps, share) for step in range(total_steps)]
        assert all(0.0 < factor <= 1.0 for factor in factors)
        assert max(factors) == pytest.approx(1.0)

    def test_without_warm_up_the_first_step_has_the_peak_rate(self):
        assert learning_rate_factor(0, 50, 0.0) == 1.0


def training_of(**told: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"num_workers": 2, "global_batch_size": 24, **told})


class TestDeepspeedConfig:
    @pytest.mark.parametrize("stage", [1, 2, 3])
    @pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
    def test_stage_and_precision(self, stage, precision):
        told = training_of(zero_stage=stage, precision=precision, use_gpu=True)
        config = deepspeed_config(told)
        assert config["zero_optimization"] == {"stage": stage}
        enabled = {name: config.get(name) for name in ("bf16", "fp16")}
        asked = {name: {"enabled": True} if name == precision else None for name in enabled}
        assert enabled == asked
        assert "data_types" not in config

    @pytest.mark.parametrize(
        ("workers", "parts", "size"),
        [(1, 1, 24), (2, 1, 24), (3, 4, 24), (24, 1, 24), (2, 12, 24), (2, 1, 128)],
    )
    def test_parts_of_all_workers_are_the_global_batch(self, workers, parts, size):
        told = training_of(num_workers=workers, global_batch_size=size, accumulation=parts)
        config = deepspeed_config(told)
        micro = config["train_micro_batch_size_per_gpu"]
        assert config["train_batch_size"] == size
        assert config["gradient_accumulation_steps"] == parts
        assert micro * workers * parts == size

    def test_parts_add_up_in_fp32_where_numbers_are_half(self):
        half = deepspeed_config(training_of(accumulation=3))
        assert half["data_types"] == {"grad_accum_dtype": "fp32"}
        assert "data_types" not in deepspeed_config(training_of(accumulation=3, precision="fp32"))

    def test_rate_and_clipping(self):
        config = deepspeed_config(TRAINING)
        assert config["gradient_clipping"] == 0.5
        assert config["optimizer"]["type"] == "AdamW"
        assert config["optimizer"]["params"]["lr"] == REST

    @pytest.mark.parametrize("use_gpu", [False, True])
    def test_the_fused_optimizer_only_on_a_gpu(self, use_gpu):
        told = TRAINING.model_copy(update={"use_gpu": use_gpu})
        assert deepspeed_config(told)["optimizer"]["params"]["torch_adam"] is not use_gpu

    def test_what_is_offloaded_goes_to_the_host(self):
        told = training_of(
            use_gpu=True, zero_stage=3, offload_optimizer="cpu", offload_parameters="cpu"
        )
        assert deepspeed_config(told)["zero_optimization"] == {
            "stage": 3,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": {"device": "cpu"},
        }


class TestRefusals:
    """Combinations that DeepSpeed would take and do badly, or refuse on a GPU that waits."""

    @pytest.mark.parametrize(
        ("told", "named"),
        [
            ({"accumulation": 5}, ("global_batch_size 24", "num_workers 2", "accumulation 5")),
            ({"precision": "fp16"}, ("'fp16'", "use_gpu", "'bf16'")),
            ({"zero_stage": 0}, ("'bf16'", "zero_stage 0", "1, 2 or 3")),
            (
                {"zero_stage": 1, "accumulation": 2},
                ("accumulation 2", "zero_stage 1", "to 2 or 3"),
            ),
            ({"offload_optimizer": "cpu"}, ("offload_optimizer 'cpu'", "use_gpu", "'none'")),
            (
                {"use_gpu": True, "offload_parameters": "cpu"},
                ("offload_parameters 'cpu'", "at least 3", "is 2"),
            ),
            (
                {
                    "use_gpu": True,
                    "zero_stage": 0,
                    "precision": "fp32",
                    "offload_optimizer": "cpu",
                },
                ("offload_optimizer 'cpu'", "at least 1", "is 0"),
            ),
            ({"offload_optimizer": "nvme"}, ("offload_optimizer", "'none' or 'cpu'")),
        ],
    )
    def test_the_message_says_what_was_given_and_what_to_do(self, told, named):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            training_of(**told)
        assert [part for part in named if part not in str(caught.value)] == []

    @pytest.mark.parametrize(
        "told",
        [
            {"zero_stage": 0, "precision": "fp32", "accumulation": 4},
            {"zero_stage": 1, "precision": "fp32", "accumulation": 4},
            {"zero_stage": 1, "use_gpu": True, "offload_optimizer": "cpu"},
            {"zero_stage": 3, "use_gpu": True, "offload_parameters": "cpu"},
            {"zero_stage": 3, "use_gpu": True, "precision": "fp16", "accumulation": 4},
        ],
    )
    def test_what_fits_together_is_taken(self, told):
        assert training_of(**told).micro_batch_size * 2 * told.get("accumulation", 1) == 24

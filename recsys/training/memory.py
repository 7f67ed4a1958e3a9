"""Memory of one rank, estimated before anything runs: weights, states, activations, scores.

Nothing is allocated: weights are counted on torch's `meta` device, and of a language model no more
is read than its `config.json`.

Shapes: P positions with a target, C candidates, D embedding size, E width of a language model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from recsys.config import ModelConfig, TrainingConfig
from recsys.models.build import ModelShape, add_heads, build_model
from recsys.pretrained import resolve_backbone

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
ADAM = 8
"""Bytes a weight of Adam's two moments."""
MASTER = 4
"""Bytes of a weight's fp32 copy, which ZeRO keeps in every precision."""
REDUCE_BUCKET = 500_000_000
"""Gradients that are averaged together (DeepSpeed 0.19.8, `reduce_bucket_size`)."""
LIVE_WEIGHTS = 1_000_000_000
"""Weights gathered at once at stage 3 (DeepSpeed 0.19.8, `stage3_max_live_parameters`)."""
SCORE_COPIES = 2
"""Copies of the scores beside the one that backward needs: while the softmax is taken and again
while its gradient is."""


@dataclass(frozen=True, slots=True)
class DataSize:
    """What memory and steps follow from: items, training windows, and targets of all windows."""

    items: int
    windows: int
    targets: int


@dataclass(frozen=True, slots=True)
class Weights:
    """Number of weights that learn and that do not, and bytes of buffers."""

    learning: int
    frozen: int
    buffers: int

    @property
    def total(self) -> int:
        """All weights."""
        return self.learning + self.frozen


@dataclass(frozen=True, slots=True)
class Workload:
    """What a rank has in memory at once, at most: a micro-batch and the items it is scored by."""

    windows: int
    positions: int
    candidates: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one rank while a step is computed, by what they hold, and elsewhere.

    `host` is the part that offloading puts into the host's memory. While a rank starts, the host
    holds the model in fp32 (`host_start`), and then the device holds it whole before stage 3 shares
    it out (`device_start`).
    """

    weights: int
    gradients: int
    optimizer: int
    buckets: int
    texts: int
    activations: int
    scores: int
    host: int
    host_start: int
    device_start: int

    @property
    def on_device(self) -> dict[str, int]:
        """What a step holds on the GPU, or of a CPU worker in the machine's memory."""
        elsewhere = ("host", "host_start", "device_start")
        names = [field.name for field in fields(self) if field.name not in elsewhere]
        return {name: getattr(self, name) for name in names}

    @property
    def device(self) -> int:
        """What must fit there: a step, or the start where that takes more."""
        return max(sum(self.on_device.values()), self.device_start)


def estimate_memory(
    model: ModelConfig,
    training: TrainingConfig,
    shape: ModelShape,
    data: DataSize,
    max_item_tokens: int,
) -> Memory:
    """What one of `num_workers` ranks needs.

    Weights, gradients and states are those of ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054,
    figure 1): with N ranks, stage 1 divides the optimizer's states by N, stage 2 gradients too, and
    stage 3 weights too.
    """
    weights, work = count_weights(model, training, shape), workload(training, shape, data)
    size, ranks = BYTES[training.precision], training.num_workers
    stage = training.zero_stage
    held = weights.total * size // (ranks if stage == 3 else 1)
    states = states_bytes(training, weights.learning)
    on_host = training.offload_optimizer != "none"
    waiting = held if training.offload_parameters != "none" else 0
    return Memory(
        weights=held - waiting + weights.buffers,
        # Offloaded states have their gradients beside them.
        gradients=0 if on_host and stage > 1 else gradients_bytes(training, weights.learning),
        optimizer=0 if on_host else states,
        buckets=_buckets(training, weights),
        texts=_cached_texts(model, training, shape),
        activations=_activations(model, training, shape, work, max_item_tokens)
        + private_bytes(model, training, shape, weights.learning),
        scores=_scores(model, training, work),
        host=waiting + (states + MASTER * weights.learning // ranks if on_host else 0),
        host_start=BYTES["fp32"] * weights.total,
        device_start=weights.total * size,
    )


def states_bytes(training: TrainingConfig, learning: int) -> int:
    """Bytes of the optimizer's states on a rank: K = 12 a weight of ZeRO's table, by stage."""
    if training.zero_stage == 0:
        return ADAM * learning
    return (MASTER + ADAM) * learning // training.num_workers


def gradients_bytes(training: TrainingConfig, learning: int) -> int:
    """Bytes of the gradients on a rank, in the format they are added up in."""
    whole = BYTES[training.gradient_precision] * learning
    return whole if training.zero_stage < 2 else whole // training.num_workers


def private_bytes(
    model: ModelConfig, training: TrainingConfig, shape: ModelShape, learning: int
) -> int:
    """Bytes of a private part's users, each with a gradient of every weight and item vector.

    Of items with text also of their projection, before and after its activation.
    """
    if not training.privacy.is_on:
        return 0
    width = model.embedding_size + 2 * model.projection_size * (shape.text_size > 0)
    return training.micro_batch_size * BYTES["fp32"] * (learning + shape.num_items * width)


def workload(training: TrainingConfig, shape: ModelShape, data: DataSize) -> Workload:
    """The largest micro-batch: as many targets as windows have on average, and no item twice."""
    a_window = data.targets / max(1, data.windows)
    windows = training.micro_batch_size
    drawn = training.num_negatives + ceil(training.global_batch_size * a_window)
    drawn += windows * shape.max_history
    return Workload(
        windows,
        ceil(windows * a_window),
        min(shape.num_items, drawn) if training.num_negatives else shape.num_items,
    )


def count_weights(model: ModelConfig, training: TrainingConfig, shape: ModelShape) -> Weights:
    """The weights as training has them: the text encoder only where it is tuned."""
    # A language model looks at its weights' values when it is built, and `meta` has none.
    plain = {"user_encoder": "hstu", "num_layers": 0, "user_backbone": None}
    decoder = model.user_backbone
    with torch.device("meta"):
        built = build_model(model.model_copy(update=plain) if decoder else model, shape)
        add_heads(built, training.heads, model, shape)
    learning, frozen = _numel(built), 0
    if decoder:
        learning += model.num_parts * _decoder_weights(decoder, model.part_size)
    if model.tuning != "frozen":
        body = _on_meta(model.backbone)
        added = lora_weights(body, model.lora_rank)
        lora = model.tuning == "lora"
        learning, frozen = learning + (added if lora else _numel(body)), _numel(body) * lora
    return Weights(learning, frozen, sum(b.numel() * b.element_size() for b in built.buffers()))


def lora_weights(body: nn.Module, rank: int) -> int:
    """Weights that LoRA adds beside every linear layer: rank times inputs and outputs."""
    # GPT-2's linear layers are transformers' Conv1D; both have one matrix of inputs by outputs.
    linear = [m for m in body.modules() if isinstance(m, nn.Linear | Conv1D)]
    return sum(rank * sum(module.weight.shape) for module in linear)


def _decoder_weights(name: str, size: int) -> int:
    """A user encoder's decoder without its token table, and the projections around it."""
    body = _on_meta(name)
    width = body.config.hidden_size
    table = body.get_input_embeddings()
    return _numel(body) - _numel(table) + 2 * size * width + width + size


def _on_meta(name: str) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModel.from_config(_architecture(name), dtype=torch.float32)


def _architecture(name: str) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(resolve_backbone(name))


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _buckets(training: TrainingConfig, weights: Weights) -> int:
    """Gradients on their way between ranks, and at stage 3 the weights that layers gathered.

    A GPU gives a bucket's memory whole; on a CPU only what is written to is there.
    """
    size = BYTES[training.precision]
    if training.zero_stage == 0:
        return 0
    reduced = REDUCE_BUCKET if training.use_gpu else min(weights.learning, REDUCE_BUCKET)
    gathered = min(weights.total, LIVE_WEIGHTS) if training.zero_stage == 3 else 0
    return (reduced + gathered) * size


def _cached_texts(model: ModelConfig, training: TrainingConfig, shape: ModelShape) -> int:
    """The text vectors of a frozen backbone, which every rank holds for all items."""
    if model.item_features == "id" or model.tuning != "frozen":
        return 0
    return shape.num_items * shape.text_size * BYTES[training.precision]


def _activations(
    model: ModelConfig,
    training: TrainingConfig,
    shape: ModelShape,
    work: Workload,
    max_item_tokens: int,
) -> int:
    """What backward needs of texts, items and histories."""
    size = BYTES[training.precision]
    checkpoints = model.activation_checkpointing
    places = work.windows * shape.max_history
    # A projection keeps what came in and what goes into and out of its GELU; the vectors are fp32.
    kept = shape.text_size * size + 2 * model.projection_size * size + 4 * 4 * model.embedding_size
    total = work.candidates * kept
    if model.tuning != "frozen":
        layers = _layers_of(model.backbone)
        texts = work.candidates * max_item_tokens
        total += layers.activations(texts, max_item_tokens, size, checkpoints)
    layers = Layers(model.num_layers, model.part_size, model.num_heads)
    if model.user_backbone:
        layers = _layers_of(model.user_backbone)
    recomputed = checkpoints and model.user_backbone is not None
    halves = model.num_parts * layers.activations(places, shape.max_history, size, recomputed)
    return total + halves


@dataclass(frozen=True, slots=True)
class Layers:
    """Transformer layers of a width, with so many attention heads."""

    number: int
    width: int
    heads: int

    def activations(self, places: int, length: int, size: int, recomputed: bool) -> int:
        """Bytes kept for backward of `places` tokens in texts of `length`, `size` bytes a number.

        Korthikanti et al. 2022 (arXiv 2205.05198), in two-byte numbers: s b h (34 + 5 a s / h) a
        layer (equation 1); with every layer recomputed its input of 2 s b h, and one layer's own
        (section 5). s b are the places, h is the width, a the heads. Attention that is fused keeps
        less, layers of another kind (HSTU, GRU) keep about as much.
        """
        per_layer = places * (34 * self.width + 5 * self.heads * length)
        if recomputed:
            return (2 * places * self.width * self.number + per_layer) * size // 2
        return per_layer * self.number * size // 2


def _layers_of(name: str) -> Layers:
    told = _architecture(name)
    return Layers(told.num_hidden_layers, told.hidden_size, told.num_attention_heads)


def _scores(model: ModelConfig, training: TrainingConfig, work: Workload) -> int:
    """(P, C) fp32 scores, of each of a vector's parts; in chunks one part's chunk at a time."""
    chunk = training.loss_chunk
    if 0 < chunk < work.positions:
        return (1 + SCORE_COPIES) * chunk * work.candidates * 4
    return (model.num_parts + SCORE_COPIES) * work.positions * work.candidates * 4

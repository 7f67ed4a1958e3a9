"""Training on paper: operations, GPU hours, and the memory of a rank.

A step encodes each item once, but every rank encodes the targets of all ranks and the sampled
negatives (`recsys.models.candidates`), so that part of the work is not shared out among ranks.
`shared` is what it would cost if each rank encoded its part and vectors were gathered, as HLLM
does; the exchange itself is left out.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from transformers import BertConfig, PreTrainedConfig, Qwen3Config

from benchmarks.capacity.architectures import MODELS, Architecture, Pass
from benchmarks.capacity.demand import Demand
from benchmarks.capacity.facts import (
    FIT_SHARE,
    GPUS,
    INFERENCE_MFU,
    RECOMPUTE,
    STEP_LEAST,
    TRAINING_MFU,
)
from recsys.config import ModelConfig, TrainingConfig
from recsys.models.build import ModelShape
from recsys.training.memory import DataSize, Memory, estimate_memory
from recsys.training.speed import PEAK_FLOPS

EVENT_KINDS = 4
"""Kinds of events; their vectors are too small to matter."""
PARTS = 2
"""A `hybrid` model reads a history once by text and once by ID (`recsys.config.ModelConfig`)."""


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What training takes; GPU hours are of all ranks together."""

    steps: int
    encodes_a_step: int
    """Distinct items that one rank encodes in a step."""
    flops: float
    """Operations of all ranks, without what is computed again."""
    gpu_hours: float
    hours: float
    usd: float


def expected_distinct(draws: float, among: int) -> float:
    """Distinct items in so many uniform draws: N (1 - (1 - 1/N)^n).

    Popular items repeat, so real histories have fewer: an upper bound.
    """
    return among * (1.0 - (1.0 - 1.0 / among) ** draws)


def encodes_a_step(demand: Demand, shared: bool) -> float:
    """Distinct items that one rank encodes: targets of all, negatives, its own histories.

    A window's targets are its history moved by one, so a history adds its first item alone.
    """
    windows = demand.windows_a_step
    draws = windows * _events_a_window(demand) + demand.negatives
    if shared:
        return expected_distinct(draws + windows, demand.items) / demand.gpus
    return expected_distinct(draws + windows / demand.gpus, demand.items)


def training_cost(demand: Demand, shared: bool = False) -> TrainingCost:
    """Time and money of `epochs` passes; frozen text vectors are made once before."""
    steps = demand.epochs * -(-demand.windows // demand.windows_a_step)
    encodes = encodes_a_step(demand, shared)
    text, again = 0.0, 0.0
    if demand.tuning != "frozen":
        text = steps * encodes * demand.gpus * _text_flops(demand, demand.tuning)
        again = text * (RECOMPUTE.value - 1.0)
    flops = text + steps * _rest_flops(demand, encodes)
    seconds = (flops + again) / demand.gpus / (PEAK_FLOPS[demand.gpu] * TRAINING_MFU.value)
    hours = demand.gpus * max(seconds, steps * STEP_LEAST.value) / 3_600
    hours += embedding_hours(demand) if demand.tuning == "frozen" else 0.0
    usd = hours * GPUS[demand.gpu].hour_usd
    return TrainingCost(steps, round(encodes), flops, hours, hours / demand.gpus, usd)


def embedding_hours(demand: Demand) -> float:
    """GPU hours of reading the whole catalogue's texts once."""
    work = demand.items * _text_flops(demand, "forward")
    return work / (PEAK_FLOPS[demand.gpu] * INFERENCE_MFU.value) / 3_600


def memory_of_rank(demand: Demand, stage: int) -> Memory:
    """Bytes of one rank at a ZeRO stage, by the dry run's own estimate."""
    text_size = MODELS[demand.model].width
    with tempfile.TemporaryDirectory() as folder:
        as_config(MODELS[demand.model]).save_pretrained(folder)
        return estimate_memory(
            ModelConfig(
                backbone=folder,
                tuning=demand.tuning,
                activation_checkpointing=demand.tuning != "frozen",
                embedding_size=demand.embedding_size,
            ),
            TrainingConfig(
                num_workers=demand.gpus,
                use_gpu=True,
                zero_stage=stage,
                global_batch_size=demand.windows_a_step,
                num_negatives=demand.negatives,
                loss_chunk=1_024,
            ),
            ModelShape(
                num_items=demand.items,
                max_history=demand.max_history,
                num_events=EVENT_KINDS,
                text_size=text_size,
            ),
            DataSize(demand.items, demand.windows, demand.events),
            demand.item_tokens,
        )


def smallest_stage(demand: Demand) -> tuple[int, float, bool]:
    """(ZeRO stage, GiB of a rank, whether it fits): the lowest stage that fits, else stage 3."""
    room = GPUS[demand.gpu].memory_gib * FIT_SHARE.value
    for stage in (1, 2, 3):
        need = memory_of_rank(demand, stage).device / 2**30
        if need <= room:
            return stage, need, True
    return 3, need, False


def as_config(architecture: Architecture) -> PreTrainedConfig:
    """A transformers config of these sizes, whose weights can be counted on `meta`."""
    sizes = BertConfig if not architecture.gated else Qwen3Config
    config = sizes(
        vocab_size=architecture.vocabulary,
        hidden_size=architecture.width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        intermediate_size=architecture.inner,
    )
    if isinstance(config, Qwen3Config):
        config.num_key_value_heads = architecture.kv_heads
        config.head_dim = architecture.head_size
    return config


def _events_a_window(demand: Demand) -> float:
    return demand.events / demand.windows


def _text_flops(demand: Demand, learns: Pass) -> float:
    """Operations of one item's text."""
    model = MODELS[demand.model]
    return demand.item_tokens * model.flops_a_token(demand.item_tokens, learns)


def _rest_flops(demand: Demand, encodes: float) -> float:
    """Operations of a step on all ranks beside the texts': histories, projections and scores.

    6 a weight and 12 L D S of attention as in `recsys.training.speed`, 6 D a score.
    """
    config = ModelConfig(embedding_size=demand.embedding_size)
    events = demand.windows_a_step * _events_a_window(demand)
    matrices = PARTS * config.num_layers * 12 * config.part_size**2
    seen = 12.0 * config.num_layers * config.embedding_size * demand.max_history
    projection = MODELS[demand.model].width * config.projection_size
    projection += config.projection_size * config.part_size
    candidates = encodes_a_step(demand, shared=False)
    scores = 6.0 * demand.embedding_size * events * candidates
    projected = 6.0 * projection * encodes * demand.gpus
    return events * (6.0 * matrices + seen) + projected + scores

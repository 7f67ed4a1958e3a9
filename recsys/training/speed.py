"""How fast a rank trains: where the time of its steps goes, and what share of a GPU's peak is used.

Shapes: B users, H positions, P positions with a target, C candidates, D embedding size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import psutil
import torch
from torch import nn

from recsys.config import ModelConfig
from recsys.models.candidates import Candidates, targets_of
from recsys.models.recommender_model import RecommenderModel
from recsys.models.sequence.language_model import LanguageModelLayers
from recsys.schema import NO_TARGET, Batch

PEAK_FLOPS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
}
"""Dense bf16 operations a second by a part of the GPU's name, from NVIDIA's data sheets."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Floating-point operations of forward and backward pass, for one of each.

    A matrix of N weights takes 2 N operations a token forward, 2 N for the gradient of what went
    in, and 2 N for its own gradient where it learns: the 6 N of Kaplan et al. 2020
    (arXiv 2001.08361) and Chinchilla (arXiv 2203.15556). Attention adds 12 L D a token and token it
    sees (PaLM, arXiv 2204.02311, appendix B), and scores 6 D a pair. Tables, norms, heads and what
    activation checkpointing computes again do not count.
    """

    event: float
    squared_length: float
    item: float
    token: float
    score: float


def model_costs(model: RecommenderModel, config: ModelConfig) -> Costs:
    """The costs of a whole model, so before ZeRO splits it."""
    return Costs(
        event=_matrix_costs(model.user_encoder),
        squared_length=12.0 * _attention_width(model, config),
        item=_matrix_costs(model.item_encoder),
        token=0.0 if model.text_encoder is None else _matrix_costs(model.text_encoder),
        score=6.0 * config.embedding_size,
    )


def _matrix_costs(module: nn.Module) -> float:
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in module.parameters() if p.ndim > 1 and id(p) not in tables]
    return float(sum(p.numel() * (6 if p.requires_grad else 4) for p in matrices))


def _attention_width(model: RecommenderModel, config: ModelConfig) -> int:
    """Layers times width of the user encoder's attention, over both of a hybrid's halves."""
    bodies = [m.body for m in model.user_encoder.modules() if isinstance(m, LanguageModelLayers)]
    if bodies:
        return sum(b.config.num_hidden_layers * b.config.hidden_size for b in bodies)
    return 0 if config.user_encoder == "gru" else config.num_layers * config.embedding_size


@dataclass(slots=True)
class Work:
    """What was computed; `tokens` are real ones of encoded texts, `places` events and padding."""

    windows: int = 0
    events: int = 0
    places: int = 0
    squared_lengths: int = 0
    items: int = 0
    tokens: int = 0
    scores: int = 0

    def flops(self, costs: Costs) -> float:
        """Operations of forward and backward pass, without those on padding."""
        return (
            costs.event * self.events
            + costs.squared_length * self.squared_lengths
            + costs.item * self.items
            + costs.token * self.tokens
            + costs.score * self.scores
        )

    def add(self, other: Work) -> None:
        """Count the other's work too."""
        for field in fields(Work):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def work_of(batch: Batch, candidates: Candidates, num_tokens: int) -> Work:
    """The work on a batch that still lies on the CPU; its candidates have so many text tokens.

    A row without targets only stands in for a rank or a part that has no window, and counts for
    nothing.
    """
    num_items = len(candidates.item_indexes)
    lengths = batch.lengths[(batch.targets != NO_TARGET).any(1)]
    return Work(
        windows=len(lengths),
        events=int(lengths.sum()),
        places=len(lengths) * batch.targets.shape[1],
        squared_lengths=int(lengths.square().sum()),
        items=num_items,
        tokens=num_tokens,
        scores=len(targets_of(batch)) * num_items,
    )


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The most bf16 operations a second of this GPU; None for another, a CPU, or fp32."""
    if device.type != "cuda" or precision != "bf16":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """By the longest name of the table that is in the GPU's own, as whole words."""
    words = f" {name.replace('-', ' ')} "
    known = [part for part in PEAK_FLOPS if f" {part} " in words]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def memory_bytes(device: torch.device) -> int:
    """The GPU's peak of allocated memory since the last call; of a CPU run, the process' memory."""
    if device.type != "cuda":
        return psutil.Process().memory_info().rss
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak


class Clock:
    """Where time goes, by name: each lap ends now and began where the one before it ended.

    On a GPU a lap is a CUDA event in the stream of work, and only `read` waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.restart()

    def restart(self) -> None:
        """Forget all laps; the next begins now."""
        self._started = time.perf_counter()
        self._marks: list[tuple[str, float | torch.cuda.Event]] = [("", self._now())]

    def lap(self, name: str) -> None:
        """What was done since the last lap has this name."""
        self._marks.append((name, self._now()))

    def read(self) -> tuple[float, dict[str, float]]:
        """Seconds since the last restart, and those of the laps by name."""
        if self._on_gpu:
            torch.cuda.synchronize()
        seconds = dict.fromkeys((name for name, _ in self._marks[1:]), 0.0)
        for (_, start), (name, end) in zip(self._marks, self._marks[1:], strict=False):
            seconds[name] += _between(start, end)
        return time.perf_counter() - self._started, seconds

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        return start.elapsed_time(end) / 1_000
    assert not isinstance(end, torch.cuda.Event)
    return end - start

"""Candidates scored after a prefix that is read once, against reading it again for each.

    python -m benchmarks.shared_prefix

A decoder of the Qwen3 family with random weights, on which speed does not depend, one thread.
Peer: one pass over prefix and candidate for each candidate, which also computes logits only where
they are needed. Ratio: seconds of the peer in seconds of ours, the median of the rounds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from recsys.ranker.cross import shared_prefix_scores

TARGET = 10.0


@dataclass(frozen=True)
class Arguments:
    """What is scored, and by how large a model."""

    candidates: int = 200
    """Candidates of a search."""
    prefix: int = 256
    """Tokens of query and history."""
    shortest: int = 6
    """Tokens of the shortest candidate."""
    longest: int = 16
    """Tokens of the longest."""
    width: int = 128
    """Hidden size; heads are of 32 numbers."""
    layers: int = 8
    """Layers: with these the vocabulary's matrix is a quarter of the weights, as in Qwen3-0.6B."""
    vocabulary: int = 4_000
    """Distinct tokens."""
    rounds: int = 3
    """Measurements."""


def main(arguments: Arguments) -> None:
    """Measure, and print one line of JSON."""
    torch.set_num_threads(1)
    model = _model(arguments)
    random = np.random.default_rng(0)
    lengths = random.integers(arguments.shortest, arguments.longest + 1, arguments.candidates)
    prefix, *candidates = [
        random.integers(arguments.vocabulary, size=size).tolist()
        for size in (arguments.prefix, *lengths)
    ]
    shared_prefix_scores(model, prefix, candidates[:2])
    rounds = []
    for _ in range(arguments.rounds):
        shared, shared_s = _timed(lambda: shared_prefix_scores(model, prefix, candidates))
        alone, alone_s = _timed(lambda: each_alone(model, prefix, candidates))
        rounds.append((alone_s / shared_s, shared_s, alone_s, float((shared - alone).abs().max())))
    ratio, shared_s, alone_s, apart = np.median(np.array(rounds), axis=0).tolist()
    result = {
        "benchmark": "shared_prefix",
        "peer": "prefix and candidate read together, one candidate after another",
        "ratio": round(ratio, 1),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            "parameters": model.num_parameters(),
            "shared_s": shared_s,
            "alone_s": alone_s,
            "largest_difference": apart,
        },
    }
    print(json.dumps(result))


@torch.inference_mode()
def each_alone(
    model: PreTrainedModel, prefix: Sequence[int], candidates: Sequence[Sequence[int]]
) -> torch.Tensor:
    """(C,) the scores of `shared_prefix_scores`, by a whole pass for each candidate."""
    scores = []
    for candidate in candidates:
        ids = torch.tensor([[*prefix, *candidate]])
        logits_TV = model(ids, logits_to_keep=len(candidate) + 1).logits[0, :-1]
        tokens = torch.tensor(candidate)
        scores.append(logits_TV.log_softmax(dim=1)[torch.arange(len(tokens)), tokens].mean())
    return torch.stack(scores)


def _model(arguments: Arguments) -> PreTrainedModel:
    torch.manual_seed(0)
    heads = arguments.width // 32
    config = Qwen3Config(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.width,
        intermediate_size=3 * arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=32,
    )
    return Qwen3ForCausalLM(config).eval()


def _timed(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    """The result, and seconds of this process' CPU: other work on the machine does not count."""
    started = time.process_time()
    return work(), time.process_time() - started


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))

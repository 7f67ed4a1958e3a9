"""Cached text vectors against encoding each step's items anew, for a frozen language model.

One process, one thread, the toy world, the same batches and the same full softmax. The peer encodes
what the step needs of the text: each unique item of the batch once, without gradient. Ratio:
windows a second with the cache, over windows a second of the peer; the two are timed in turns.
"""

from __future__ import annotations

import json
import statistics
import time

import torch

from recsys.config import ModelConfig, WorldConfig
from recsys.data.collate import collate_windows
from recsys.data.synthetic import generate
from recsys.data.tokenize import load_tokenizer, with_tokens
from recsys.models.backbone import TextEncoder, load_text_encoder, pad_tokens
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import softmax_loss
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import Batch, History

ROUNDS, STEPS, WINDOWS, LENGTH = 5, 3, 32, 12
TARGET = 10.0


def main() -> None:
    """Run both and print the result as one JSON object."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ModelConfig(item_features="text")
    tokens = _tokens(config)
    encoder = load_text_encoder(config).eval()
    shape = ModelShape(
        num_items=len(tokens), max_history=LENGTH, num_events=1, text_size=encoder.size
    )
    model = build_model(config, shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    cached = torch.randn(len(tokens), encoder.size)
    speeds: dict[str, list[float]] = {"cached": [], "encoded": []}
    for number in range(ROUNDS):
        for name, found in speeds.items():
            source = encoder if name == "encoded" else None
            found.append(_speed(model, optimizer, cached, source, tokens, number))
    _report(speeds)


def _tokens(config: ModelConfig) -> list[list[int]]:
    items = generate(WorldConfig(num_users=50, num_queries=0)).items
    fields = ("title", "category", "brand", "description")
    return with_tokens(items, load_tokenizer(config.backbone), fields, 64)["token_ids"].to_pylist()


def _speed(
    model: RecommenderModel,
    optimizer: torch.optim.Optimizer,
    cached: torch.Tensor,
    encoder: TextEncoder | None,
    tokens: list[list[int]],
    seed: int,
) -> float:
    """Windows a second over a few steps; `encoder` is None where the cache is used."""
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    for _ in range(STEPS):
        batch = _batch(len(tokens), generator)
        if encoder is not None:
            _encode_anew(encoder, tokens, cached, batch)
        inputs = ItemInputs(torch.arange(len(tokens)), text=cached)
        loss = softmax_loss(*model(batch, inputs), temperature=0.07)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return STEPS * WINDOWS / (time.perf_counter() - started)


def _batch(num_items: int, generator: torch.Generator) -> Batch:
    rows = torch.randint(num_items, (WINDOWS, LENGTH + 1), generator=generator)
    return collate_windows([History.of_items(row.numpy()) for row in rows])


def _encode_anew(
    encoder: TextEncoder, tokens: list[list[int]], table: torch.Tensor, batch: Batch
) -> None:
    unique = torch.cat([batch.item_indexes.flatten(), batch.targets.flatten()]).unique()
    with torch.inference_mode():
        vectors = encoder(pad_tokens([tokens[i] for i in unique.tolist()]))
    table[unique] = vectors.clone()


def _report(speeds: dict[str, list[float]]) -> None:
    ratios = [c / e for c, e in zip(speeds["cached"], speeds["encoded"], strict=True)]
    middle = {name: round(statistics.median(found), 1) for name, found in speeds.items()}
    result = {
        "benchmark": "text_cache",
        "peer": "the same step, encoding each unique item of the batch once",
        "ratio": round(statistics.median(ratios), 2),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {"windows_per_second": middle, "ratios": [round(r, 2) for r in ratios]},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

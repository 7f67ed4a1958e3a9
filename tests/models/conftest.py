"""Decoders so small that a test builds them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel, PreTrainedModel

SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def saved(model: type[PreTrainedModel], config, folder: Path) -> str:
    torch.manual_seed(0)
    model(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a random two-layer GPT-2 of width 8 that reads 32 positions."""
    return saved(GPT2Model, GPT2Config(**SIZES), tmp_path_factory.mktemp("tiny_gpt2"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a random two-layer Llama of width 8 that reads 32 positions."""
    config = LlamaConfig(**SIZES, intermediate_size=16)
    return saved(LlamaModel, config, tmp_path_factory.mktemp("tiny_llama"))

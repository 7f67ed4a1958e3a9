"""Small real things that tests share: a two-layer language model, a made-up shop, a local Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray reads it on import; test_local_cluster has auth on
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = "red blue green hammer nail saw drill shirt hat shoe title category brand small large"


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a random two-layer BERT of width 16 with a word tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_backbone")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray on this machine for the whole test session."""
    import ray

    ray.init(
        "local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=300_000_000,
        runtime_env={"env_vars": {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}},
    )
    yield
    ray.shutdown()


def write_shop(folder: Path, interactions: dict, items: dict) -> str:
    """Write raw tables given as columns; returns the directory."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
    pq.write_table(pa.table(items), folder / "items.parquet")
    return str(folder)

"""Small real things that tests share: a two-layer language model, a made-up shop, a local Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray reads it on import; test_local_cluster has auth on
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    S3_PORT = probe.getsockname()[1]
# Set before Ray starts, so that its workers find the local S3 as they would find a real one.
os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{S3_PORT}"
os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "test"
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from recsys.artifact import Artifact
from recsys.config import IndexConfig, ModelConfig, PrepareConfig, TrainingConfig, WorldConfig
from recsys.data.prepare import prepare
from recsys.data.synthetic import generate, write_world
from recsys.index.build import build_index

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


@pytest.fixture(scope="session")
def toy_dataset(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: str, local_ray: None
) -> Artifact:
    """A dataset of a small generated world, tokenised for the tiny backbone."""
    folder = tmp_path_factory.mktemp("toy")
    write_world(generate(WorldConfig(num_users=300, num_items=60, num_queries=0)), folder / "world")
    config = PrepareConfig(max_history=8, max_item_tokens=16, num_partitions=3)
    return prepare(config, tiny_backbone, str(folder / "world"), str(folder / "dataset"))


@pytest.fixture(scope="session")
def toy_model(tiny_backbone: str) -> ModelConfig:
    """A model small enough to train in seconds."""
    return ModelConfig(backbone=tiny_backbone, embedding_size=16, projection_size=16, num_layers=1)


TOY_TRAINING = TrainingConfig(epochs=3, global_batch_size=32, precision="fp32", learning_rate=5e-3)


@pytest.fixture(scope="session")
def toy_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, toy_dataset: Artifact, toy_model: ModelConfig
) -> Artifact:
    """A trained checkpoint: two workers, ZeRO-2, fp32."""
    from recsys.training.trainer import train  # deepspeed takes seconds to import

    folder = tmp_path_factory.mktemp("toy_checkpoint")
    return train(toy_model, TOY_TRAINING, toy_dataset, str(folder / "checkpoint"))


@pytest.fixture(scope="session")
def toy_index(
    tmp_path_factory: pytest.TempPathFactory, toy_dataset: Artifact, toy_checkpoint: Artifact
) -> Artifact:
    """The index of the toy checkpoint."""
    folder = tmp_path_factory.mktemp("toy_index")
    return build_index(IndexConfig(), toy_dataset, toy_checkpoint, str(folder / "index"))

"""Which items a step reads in other words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recsys.artifact import Artifact
from recsys.config import AugmentConfig, ModelConfig, TrainingConfig
from recsys.models.build import ModelShape
from recsys.training.job import CatalogueInputs, TrainJob, check_training
from recsys.training.text_cache import PARAPHRASES, TEXT_VECTORS

N, V, E = 1_000, 3, 2
OWN = torch.arange(N).float()[:, None].repeat(1, E)
OTHERS = OWN + 10_000 * torch.arange(1, V + 1).float()[:, None, None]


def inputs(dataset: Artifact, folder: Path, share: float) -> CatalogueInputs:
    save_file({TEXT_VECTORS: OWN, PARAPHRASES: OTHERS}, folder / "text.safetensors")
    job = TrainJob(
        dataset=dataset.uri,
        model=ModelConfig(),
        training=TrainingConfig(augment=AugmentConfig(paraphrase=share)),
        shape=ModelShape(num_items=N, max_history=10, num_events=1, text_size=E),
        text_vectors=str(folder / "text.safetensors"),
    )
    return CatalogueInputs(job, dataset, torch.device("cpu"), torch.float32)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_share_is_reworded_each_in_one_of_its_own_wordings(dataset, tmp_path):
    items = inputs(dataset, tmp_path, 0.3)
    rows = torch.arange(1, N).flip(0)
    text = items.of(rows, draws(1)).text
    assert torch.equal(text[:, 0] % 10_000, rows.float())
    wordings = (text[:, 0] // 10_000).long().bincount(minlength=V + 1) / N
    assert wordings.tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.05)


def test_all_ranks_read_the_same_and_validation_what_is_written(dataset, tmp_path):
    items, rows = inputs(dataset, tmp_path, 0.5), torch.arange(N)
    assert torch.equal(items.of(rows, draws(4)).text, items.of(rows, draws(4)).text)
    assert not torch.equal(items.of(rows, draws(4)).text, items.of(rows, draws(5)).text)
    assert torch.equal(items.of(rows).text, OWN)
    assert torch.equal(items.of(rows, draws(1)).item_indexes, rows)


def test_a_tuned_backbone_has_no_cached_words_to_change(dataset):
    with pytest.raises(ValueError, match=r"augment\.paraphrase needs the cached text vectors"):
        check_training(
            ModelConfig(tuning="lora"),
            TrainingConfig(augment=AugmentConfig(paraphrase=0.1)),
            dataset,
        )

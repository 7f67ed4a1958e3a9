"""What a checkpoint names as its parents: contents, not paths."""

from __future__ import annotations

from pathlib import Path

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig, TrainingConfig
from recsys.training.pretrain import pretrain_parents
from recsys.training.trainer import training_parents


def put(place: Path, kind: str, content: bytes) -> Artifact:
    writer = ArtifactWriter(place, kind)
    writer.add_bytes("backbone/config.json", content)
    return writer.publish({}, {})


def test_a_backbone_that_was_made_again_at_its_place_is_another_parent(tmp_path):
    dataset = put(tmp_path / "dataset", "dataset", b"rows")
    model = ModelConfig(backbone=str(tmp_path / "before" / "backbone"))
    digests = []
    for content in (b"once", b"again"):
        made = put(tmp_path / "before", "backbone", content)
        parents = {"dataset": dataset.digest, "backbone": made.digest}
        assert training_parents(model, TrainingConfig(), dataset) == parents
        assert pretrain_parents(model, dataset) == parents
        digests.append(made.digest)
    assert digests[0] != digests[1]


def test_the_checkpoint_that_training_starts_from_is_a_parent(tmp_path):
    dataset = put(tmp_path / "dataset", "dataset", b"rows")
    start = put(tmp_path / "start", "checkpoint", b"weights")
    training = TrainingConfig(start_from=start.uri)
    parents = training_parents(ModelConfig(), training, dataset)
    assert parents == {"dataset": dataset.digest, "start_from": start.digest}


def test_a_model_of_ids_has_no_backbone_for_a_parent(tmp_path):
    dataset = put(tmp_path / "dataset", "dataset", b"rows")
    made = put(tmp_path / "before", "backbone", b"once")
    model = ModelConfig(backbone=f"{made.uri}/backbone", item_features="id")
    assert training_parents(model, TrainingConfig(), dataset) == {"dataset": dataset.digest}

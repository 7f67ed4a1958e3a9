"""A checkpoint in terms of a foreign dataset: items by their text, events by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_jobs import stages
from ray_jobs.command import parse
from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import EvaluationConfig, PrepareConfig
from recsys.data.collate import histories_of, read_rows
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Event, Query, Recommender
from recsys.eval.evaluate import evaluate
from recsys.eval.transfer import transfer_checkpoint
from recsys.index.embed import trained_indexes
from recsys.index.item_index import VECTORS, ExactIndex, save_index
from recsys.models.backbone import pad_tokens
from recsys.models.build import add_heads, load_model
from recsys.models.item_encoder import UNSEEN, ItemInputs
from tests.models.test_warm_start import (
    EVENTS,
    OTHER_EVENTS,
    TEXTS,
    config,
    publish,
    shape,
    trained,
)

TOKENS = [*TEXTS, [2, 14, 15, 3], [2, 16, 9, 3]]
NUM_ITEMS = len(TOKENS)
IDS = [str(number) for number in range(NUM_ITEMS)]
"""As the checkpoint's own ids, which name other items."""
ROWS = {
    "user_id": ["u1", "u2"],
    "item_indexes": [[6, 1, 3], [5]],
    "timestamps": [[-1, -1, -1], [-1]],
    "events": [[0, 1, 2], [3]],
    "targets": [[2], [4]],
}


def make_checkpoint(backbone: str, folder: Path, **changes) -> Artifact:
    """A checkpoint as a training run leaves it, of items "0" to "4"."""
    told = config(backbone, **changes)
    return completed(
        publish(trained(told), told, folder / "parts", len(TEXTS)), folder / "checkpoint"
    )


def completed(source: Artifact, folder: Path) -> Artifact:
    """With the files that training writes beside the model's."""
    writer = ArtifactWriter(folder, "checkpoint")
    for name in source.names():
        writer.add_bytes(name, source.read_bytes(name))
    writer.add_table("items.parquet", pa.table({"item_id": IDS[: len(TEXTS)]}))
    writer.add_json("training_log.json", [{"step": 1, "loss": 2.0}])
    return writer.publish(source.manifest.config, {}, source.manifest.facts)


def make_dataset(backbone: str, folder: Path, events: list[str] = OTHER_EVENTS) -> Artifact:
    writer = ArtifactWriter(folder, "dataset")
    writer.add_table("items.parquet", items_table())
    writer.add_table("test/part-0.parquet", pa.table(ROWS))
    told = PrepareConfig(events=tuple(events)).model_dump(mode="json")
    writer.add_json("quality.json", {"tables": {}})
    facts = {"num_users": 2, "num_items": NUM_ITEMS, "rows": {"test": 2}}
    facts["split"] = {"strategy": "column", "valid_from": 0, "test_from": 0}
    return writer.publish({"prepare": told, "backbone": backbone}, {}, facts)


def items_table() -> pa.Table:
    columns = {"item_id": IDS, "item_index": range(NUM_ITEMS), "title": IDS, "token_ids": TOKENS}
    return pa.table(columns | {"train_count": [1] * NUM_ITEMS, "removed": [False] * NUM_ITEMS})


@torch.no_grad()
def item_vectors(checkpoint: Artifact, indexes: np.ndarray) -> torch.Tensor:
    model, _ = load_model(checkpoint)
    return model.encode_items(ItemInputs(torch.as_tensor(indexes), tokens=pad_tokens(TOKENS)))


def make_index(checkpoint: Artifact, dataset: Artifact, folder: Path) -> Artifact:
    """As `build_index`, without Ray."""
    vectors = item_vectors(checkpoint, trained_indexes(dataset, checkpoint))
    writer = ArtifactWriter(folder, "index")
    writer.add_bytes(VECTORS, save_index(ExactIndex(vectors)))
    writer.add_table("items.parquet", items_table())
    return writer.publish({}, {"checkpoint": checkpoint.digest, "dataset": dataset.digest})


@pytest.mark.parametrize("features", ["hybrid", "text"])
class TestTransfer:
    def test_items_are_known_by_their_text_though_ids_are_the_same(
        self, tiny_backbone, tmp_path, features
    ):
        checkpoint = make_checkpoint(tiny_backbone, tmp_path, item_features=features)
        dataset = make_dataset(tiny_backbone, tmp_path / "dataset")
        moved = transfer_checkpoint(checkpoint, dataset, str(tmp_path / "moved"))
        by_text = item_vectors(checkpoint, np.full(NUM_ITEMS, UNSEEN))
        found = item_vectors(moved, trained_indexes(dataset, moved))
        torch.testing.assert_close(found, by_text)
        taken_over = item_vectors(checkpoint, trained_indexes(dataset, checkpoint))
        assert torch.allclose(taken_over, by_text, atol=1e-3) == (features == "text")

    def test_a_rows_event_numbers_mean_the_datasets_names(self, tiny_backbone, tmp_path, features):
        checkpoint = make_checkpoint(tiny_backbone, tmp_path, item_features=features)
        dataset = make_dataset(tiny_backbone, tmp_path / "dataset")
        moved = transfer_checkpoint(checkpoint, dataset, str(tmp_path / "moved"))
        index = make_index(moved, dataset, tmp_path / "index")
        ranked = Recommender.load(moved, index, False).rank(
            histories_of(read_rows(dataset, "test")), [NUM_ITEMS] * 2, [[], []]
        )
        model, shape = load_model(checkpoint)
        vectors = item_vectors(checkpoint, np.full(NUM_ITEMS, UNSEEN))
        source = Recommender(
            *(model, ExactIndex(vectors), Catalogue(items_table()), shape.max_history),
            *(EVENTS, False),
        )
        queries = [
            Query(
                [Event(IDS[i], event=OTHER_EVENTS[e]) for i, e in zip(*row, strict=True)], NUM_ITEMS
            )
            for row in zip(ROWS["item_indexes"], ROWS["events"], strict=True)
        ]
        for found, answer in zip(ranked, source.recommend(queries), strict=True):
            assert [IDS[item] for item in found.item_indexes] == [i.item_id for i in answer.items]
            assert found.scores == pytest.approx([i.score for i in answer.items], abs=1e-5)

    def test_names_of_events_in_another_order_make_the_same_model(
        self, tiny_backbone, tmp_path, features
    ):
        checkpoint = make_checkpoint(tiny_backbone, tmp_path, item_features=features)
        same = make_dataset(tiny_backbone, tmp_path / "same", EVENTS)
        moved = transfer_checkpoint(checkpoint, same, str(tmp_path / "moved"))
        (ours, _), (theirs, _) = load_model(moved), load_model(checkpoint)
        state = theirs.user_encoder.state_dict()
        for name, tensor in ours.user_encoder.state_dict().items():
            assert torch.equal(tensor, state[name]), name


def test_it_passes_for_a_checkpoint_of_the_dataset_and_tells_where_it_is_from(
    tiny_backbone, tmp_path
):
    checkpoint = make_checkpoint(tiny_backbone, tmp_path)
    dataset = make_dataset(tiny_backbone, tmp_path / "dataset")
    moved = transfer_checkpoint(checkpoint, dataset, str(tmp_path / "moved"))
    moved.check_files()
    parents = {"dataset": dataset.digest, "start_from": checkpoint.digest}
    assert moved.manifest.parents == parents
    assert moved.manifest.facts["prepare"]["events"] == OTHER_EVENTS
    again = transfer_checkpoint(checkpoint, dataset, str(tmp_path / "again"))
    assert again.digest == moved.digest


def test_a_dataset_tokenised_for_another_language_model_is_refused(tiny_backbone, tmp_path):
    checkpoint = make_checkpoint(tiny_backbone, tmp_path)
    dataset = make_dataset("another/model", tmp_path / "dataset")
    with pytest.raises(ValueError, match=r"tokenised for another/model.*model.backbone = "):
        transfer_checkpoint(checkpoint, dataset, str(tmp_path / "moved"))
    assert not (tmp_path / "moved").exists()


def test_a_checkpoint_of_ids_is_refused(tiny_backbone, tmp_path):
    checkpoint = make_checkpoint(tiny_backbone, tmp_path, item_features="id")
    dataset = make_dataset(tiny_backbone, tmp_path / "dataset")
    with pytest.raises(ValueError, match="knows items by ID alone"):
        transfer_checkpoint(checkpoint, dataset, str(tmp_path / "moved"))


def test_the_dataset_is_evaluated_as_any_other(tiny_backbone, tmp_path):
    checkpoint = make_checkpoint(tiny_backbone, tmp_path)
    dataset = make_dataset(tiny_backbone, tmp_path / "dataset")
    moved = transfer_checkpoint(checkpoint, dataset, str(tmp_path / "moved"))
    index = make_index(moved, dataset, tmp_path / "index")
    config = EvaluationConfig(cutoffs=(1, 10))
    report = evaluate(config, dataset, moved, index, str(tmp_path / "report"))
    scores = report.read_json("report.json")["models"]
    assert {"model", "popularity"} <= set(scores)
    assert scores["model"]["all"]["users"] == 2
    assert scores["model"]["all"]["recall@10"] == 1.0  # of 7 items


def test_heads_stay_behind(tiny_backbone, tmp_path):
    told = config(tiny_backbone)
    model = trained(told)
    add_heads(model, ("rating", "probability"), told, shape(len(TEXTS), len(EVENTS)))
    source = publish(model, told, tmp_path / "parts", len(TEXTS))
    checkpoint = completed(source, tmp_path / "checkpoint")
    assert load_model(checkpoint)[0].heads is not None
    dataset = make_dataset(tiny_backbone, tmp_path / "dataset")
    moved = transfer_checkpoint(checkpoint, dataset, str(tmp_path / "moved"))
    assert load_model(moved)[0].heads is None


class TestCommandLine:
    TOY = ("--config", "ray_jobs/configs/toy.toml")

    def test_the_checkpoint_stands_beside_settings(self, monkeypatch):
        monkeypatch.chdir(Path(__file__).parents[2])
        told = ["--checkpoint", "runs/a", *self.TOY, "--output", "o", "--evaluation.split", "valid"]
        command = parse("", told)
        assert (command.checkpoint, command.place("dataset")) == ("runs/a", "o/dataset")
        assert command.job.evaluation.split == "valid"
        assert command.job.training.epochs == 12  # of the file

    def test_without_a_checkpoint_it_is_refused(self, monkeypatch):
        monkeypatch.chdir(Path(__file__).parents[2])
        with pytest.raises(ValueError, match="--checkpoint is missing"):
            stages.transfer(parse("", [*self.TOY]))

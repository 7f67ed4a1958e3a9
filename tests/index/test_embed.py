from pathlib import Path

import pyarrow as pa

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.index.embed import trained_indexes
from recsys.models.item_encoder import UNSEEN


def with_items(folder: Path, kind: str, item_ids: list[str]) -> Artifact:
    writer = ArtifactWriter(folder, kind)
    writer.add_table("items.parquet", pa.table({"item_id": item_ids}))
    writer.publish({}, {}, {})
    return open_artifact(folder, kind)


def indexes(tmp_path: Path, trained: list[str], now: list[str]) -> list[int]:
    checkpoint = with_items(tmp_path / "checkpoint", "checkpoint", trained)
    return trained_indexes(with_items(tmp_path / "dataset", "dataset", now), checkpoint).tolist()


def test_the_dataset_of_the_training_keeps_its_rows(tmp_path):
    assert indexes(tmp_path, ["b", "a", "c"], ["b", "a", "c"]) == [0, 1, 2]


def test_a_newer_catalogue_finds_its_old_items_and_knows_the_new_ones(tmp_path):
    found = indexes(tmp_path, ["b", "d"], ["a", "b", "c", "d", "e"])
    assert found == [UNSEEN, 0, UNSEEN, 1, UNSEEN]

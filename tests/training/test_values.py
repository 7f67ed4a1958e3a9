"""What the values of training targets are like, by hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig, TrainingConfig
from recsys.models.heads import ITEM_PRIOR
from recsys.training.job import check_training
from recsys.training.values import read_value_facts

NAN = float("nan")


def dataset(folder: Path, *files: dict[str, list]) -> Artifact:
    writer = ArtifactWriter(folder, "dataset")
    kinds = {"item_indexes": pa.int32(), "values": pa.float32()}
    for number, columns in enumerate(files):
        table = {name: pa.array(c, pa.large_list(kinds[name])) for name, c in columns.items()}
        writer.add_table(f"train/{number}.parquet", pa.table(table))
    return writer.publish({}, {}, {"num_items": 4})


def test_facts_are_those_of_the_targets_of_all_files(tmp_path: Path) -> None:
    facts = read_value_facts(
        dataset(
            tmp_path,
            {"item_indexes": [[0, 1, 2], [1, 1]], "values": [[99, 1, 5], [99, 3]]},
            {"item_indexes": [[0, 2, 0]], "values": [[99, 7, NAN]]},
        )
    )
    # Targets are 1 and 3 of item 1, 5 and 7 of item 2; one of item 0 has no known value.
    assert facts.mean == 4.0
    assert facts.scale == pytest.approx(5**0.5)
    offset = 4 / (2 + ITEM_PRIOR) / 5**0.5
    assert facts.item_offsets.tolist() == pytest.approx([0, -offset, offset, 0])


def test_values_that_are_all_alike_have_scale_one(tmp_path: Path) -> None:
    facts = read_value_facts(dataset(tmp_path, {"item_indexes": [[0, 1]], "values": [[2, 2]]}))
    assert (facts.mean, facts.scale) == (2.0, 1.0)


def test_values_of_which_none_is_known_are_refused(tmp_path: Path) -> None:
    unknown = dataset(tmp_path, {"item_indexes": [[0, 1]], "values": [[2, NAN]]})
    with pytest.raises(ValueError, match="no value of .* is known"):
        read_value_facts(unknown)


def test_ratings_of_a_dataset_without_values_are_refused_before_any_work(tmp_path: Path) -> None:
    without = dataset(tmp_path, {"item_indexes": [[0, 1]]})
    with pytest.raises(ValueError, match="keep_values = true"):
        check_training(ModelConfig(), TrainingConfig(rating_weight=1.0), without)
    check_training(ModelConfig(), TrainingConfig(probability_weight=1.0), without)

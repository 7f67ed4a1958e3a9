"""The time of a catalogue goes from a dataset to its index, and changes no digest."""

from __future__ import annotations

from pathlib import Path

from recsys.artifact import Artifact, ArtifactWriter
from recsys.index.catalogue_time import catalogue_time, keep_catalogue_time


def index_of(folder: Path, told: dict[str, int] | None) -> Artifact:
    dataset = ArtifactWriter(str(folder / "dataset"), "dataset")
    if told is not None:
        dataset.add_json("inputs.json", told)
    index = ArtifactWriter(str(folder / "index"), "index")
    keep_catalogue_time(index, dataset.publish({}, {}))
    return index.publish({}, {})


def test_an_index_tells_the_time_of_its_datasets_catalogue(tmp_path: Path) -> None:
    told = index_of(tmp_path / "a", {"items_changed_ns": 1_800_000_000_500_000_000})
    assert catalogue_time(told) == 1_800_000_000.5
    older = index_of(tmp_path / "b", {"num_rows": 3})
    assert catalogue_time(older) == catalogue_time(index_of(tmp_path / "c", None)) == 0.0
    assert told.digest == older.digest


def test_an_index_of_an_older_release_does_not_tell(tmp_path: Path) -> None:
    assert catalogue_time(ArtifactWriter(str(tmp_path), "index").publish({}, {})) == 0.0

"""The registry: versions never change, aliases move and move back, a replaced artifact is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsys.artifact import Artifact, ArtifactWriter
from recsys.registry import Golden, GoldenSearch, Registry, Version, differences

GOLDEN = [Golden(history=["a"], answer=["b", "c"])]


def make_checkpoint(place: Path, epochs: int = 3) -> Artifact:
    return ArtifactWriter(place, "checkpoint").publish({"training": {"epochs": epochs}}, {})


def make_index(place: Path, checkpoint: Artifact) -> Artifact:
    parents = {"checkpoint": checkpoint.digest, "dataset": "d" * 64}
    return ArtifactWriter(place, "index").publish({"index": {"precision": "fp32"}}, parents)


def make_ranker(place: Path, index: Artifact, seed: int = 0) -> Artifact:
    writer = ArtifactWriter(place, "ranker")
    return writer.publish({"ranker": {"seed": seed}}, {"index": index.digest})


def register(registry: Registry, folder: Path, epochs: int, now: float) -> Version:
    checkpoint = make_checkpoint(folder / f"checkpoint-{epochs}", epochs)
    return registry.register(
        checkpoint, make_index(folder / f"index-{epochs}", checkpoint), GOLDEN, now
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"{tmp_path}/registry/")


def test_a_version_comes_back_as_it_was_registered(registry: Registry, tmp_path: Path) -> None:
    made = register(registry, tmp_path, 3, now=10.0)
    assert Registry(registry.uri).version(made.name) == made
    assert made.golden == GOLDEN
    assert made.dataset_digest == "d" * 64


def test_versions_are_told_oldest_first(registry: Registry, tmp_path: Path) -> None:
    made = [register(registry, tmp_path, epochs, now) for epochs, now in ((5, 2.0), (4, 1.0))]
    assert registry.versions() == made[::-1]


def test_registering_again_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    first = register(registry, tmp_path, 3, now=10.0)
    checkpoint, index = registry.open(first)
    assert registry.register(checkpoint, index, [], now=99.0) == first
    assert registry.versions() == [first]


def test_an_index_of_another_checkpoint_is_refused(registry: Registry, tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", make_checkpoint(tmp_path / "one", 1))
    with pytest.raises(ValueError, match="was not made from"):
        registry.register(make_checkpoint(tmp_path / "two", 2), index, GOLDEN, 0.0)
    assert registry.versions() == []


def test_a_final_ranker_makes_another_version_which_names_it(
    registry: Registry, tmp_path: Path
) -> None:
    plain = register(registry, tmp_path, 3, now=1.0)
    pair = registry.open(plain)
    rankers = [make_ranker(tmp_path / f"ranker-{seed}", pair[1], seed) for seed in (0, 1)]
    found = [GoldenSearch(text="红 hat", answer=["b"])]
    made = [
        registry.register(*pair, GOLDEN, 2.0 + n, ranker=ranker, searches=found)
        for n, ranker in enumerate(rankers)
    ]
    assert registry.versions() == [plain, *made]
    assert (plain.ranker, registry.open_ranker(plain)) == (None, None)
    opened = registry.open_ranker(made[0])
    assert opened is not None
    assert (opened.digest, made[0].ranker) == (rankers[0].digest, rankers[0].uri)
    assert registry.version(made[0].name).searches == found
    told = differences(registry, *made)
    assert told["ranker.seed"] == [0, 1]
    assert sorted(told) == ["ranker.digest", "ranker.seed"]
    assert "ranker.digest" in differences(registry, plain, made[0])


def test_a_version_of_before_there_were_rankers_is_read(registry: Registry, tmp_path: Path) -> None:
    made = register(registry, tmp_path, 3, now=1.0)
    place = Path(registry.uri) / "versions" / f"{made.name}.json"
    old = json.loads(place.read_text())
    for name in ("ranker", "ranker_digest", "searches"):
        del old[name]
    place.write_text(json.dumps(old))
    assert registry.version(made.name) == made


def test_a_ranker_of_another_index_or_in_the_place_of_one_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    pair = registry.open(register(registry, tmp_path, 3, now=1.0))
    other = ArtifactWriter(tmp_path / "other", "index").publish({"index": {}}, {})
    with pytest.raises(ValueError, match="foreign was not fitted to"):
        registry.register(*pair, GOLDEN, 2.0, ranker=make_ranker(tmp_path / "foreign", other))
    ranker = make_ranker(tmp_path / "ranker", pair[1])
    version = registry.register(*pair, GOLDEN, 3.0, ranker=ranker)
    make_ranker(tmp_path / "ranker", pair[1], seed=9)
    with pytest.raises(ValueError, match="ranker is not what version"):
        registry.open_ranker(version)


def test_an_alias_moves_and_goes_back(registry: Registry, tmp_path: Path) -> None:
    assert registry.alias("live") is None
    one, two = (register(registry, tmp_path, epochs, now=epochs) for epochs in (1, 2))
    first = registry.point("live", one.name, now=100.0, wait_s=30.0)
    assert (first.version, first.previous, first.generation) == (one.name, None, 1)
    assert (first.changed_at, first.flip_at) == (100.0, 130.0)
    second = registry.point("live", two.name, now=200.0)
    assert (second.version, second.previous, second.generation) == (two.name, one.name, 2)
    back = registry.back("live", now=300.0, wait_s=5.0)
    assert (back.version, back.previous, back.generation) == (one.name, two.name, 3)
    assert registry.alias("live") == back
    assert registry.alias("candidate") is None


def test_nothing_goes_back_to_nothing(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stood for nothing before"):
        registry.back("live", now=0.0)
    registry.point("live", register(registry, tmp_path, 1, 0.0).name, now=0.0)
    with pytest.raises(ValueError, match="stood for nothing before"):
        registry.back("live", now=1.0)


def test_an_alias_never_stands_for_what_is_not_there(registry: Registry) -> None:
    with pytest.raises(ValueError, match="no version 'gone'"):
        registry.point("live", "gone", now=0.0)
    assert registry.alias("live") is None


def test_an_artifact_that_was_replaced_is_told(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, tmp_path, 3, now=0.0)
    make_checkpoint(tmp_path / "checkpoint-3", epochs=4)
    with pytest.raises(ValueError, match="is not what version"):
        registry.open(version)


def test_a_damaged_file_is_named(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, tmp_path, 3, now=0.0)
    place = Path(registry.uri) / "versions" / f"{version.name}.json"
    place.write_text(json.dumps({"name": version.name}))
    with pytest.raises(ValueError, match=rf"{version.name}\.json is damaged"):
        registry.version(version.name)


def test_differences_name_the_settings(registry: Registry, tmp_path: Path) -> None:
    one, two = (register(registry, tmp_path, epochs, now=epochs) for epochs in (1, 2))
    assert differences(registry, one, two) == {"checkpoint.training.epochs": [1, 2]}
    assert differences(registry, one, one) == {}

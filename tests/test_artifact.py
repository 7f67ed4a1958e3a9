"""Artifacts: whole or not there at all, and every damage told with the file it is in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys.artifact
from recsys.artifact import (
    INCOMPLETE,
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    ArtifactWriter,
    find_manifest,
    open_artifact,
    write_file,
)

FILES = {"a.bin": b"first", "folder/b.bin": b"second", "folder/deep/c.bin": b""}
TABLE = pa.table({"item_id": ["a", "b"], "count": [1, 2]})
file_names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(
    lambda parts: "/".join(parts) + ".bin"
)
contents = st.dictionaries(file_names, st.binary(max_size=20), max_size=4)


def make(uri, files=FILES, kind="dataset", config=None, parents=None, facts=None) -> Artifact:
    """Write a whole artifact of these files."""
    writer = ArtifactWriter(uri, kind)
    for name, content in files.items():
        writer.add_bytes(name, content)
    return writer.publish(config or {"epochs": 3}, parents or {}, facts)


def on_disk(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def payload(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.read_bytes(name) for name in artifact.names()}


def edit_manifest(uri: Path, **changes) -> None:
    path = uri / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_published_is_what_is_opened(tmp_path):
    made = make(
        tmp_path / "a", config={"名": [1, 2.5, None]}, parents={"items": "abc"}, facts={"rows": 7}
    )
    opened = open_artifact(tmp_path / "a", "dataset")
    assert payload(opened) == FILES
    assert opened.manifest == made.manifest
    assert opened.digest == made.digest
    assert opened.manifest.config == {"名": [1, 2.5, None]}
    assert opened.manifest.parents == {"items": "abc"}
    assert opened.manifest.facts == {"rows": 7}
    assert opened.manifest.schema_version == SCHEMA_VERSION
    assert find_manifest(tmp_path / "a") == made.manifest


def test_json_and_tables_round_trip(tmp_path):
    writer = ArtifactWriter(tmp_path / "a", "report")
    writer.add_json("facts.json", {"标题": [1, None]})
    writer.add_table("items.parquet", TABLE)
    writer.publish({}, {})
    opened = open_artifact(tmp_path / "a", "report")
    assert opened.read_json("facts.json") == {"标题": [1, None]}
    assert opened.read_table("items.parquet").equals(TABLE)
    assert opened.read_table("items.parquet", ["count"]).column_names == ["count"]


def test_a_directory_is_copied_with_its_folders(tmp_path):
    for name, content in FILES.items():
        write_file(tmp_path / "local", name, content)
    writer = ArtifactWriter(tmp_path / "a", "checkpoint")
    writer.add_directory(tmp_path / "local", "model")
    assert payload(writer.publish({}, {})) == {f"model/{n}": c for n, c in FILES.items()}


def test_names_are_sorted_and_chosen_by_prefix(tmp_path):
    artifact = make(tmp_path / "a", dict(reversed(FILES.items())))
    assert artifact.names() == ["a.bin", "folder/b.bin", "folder/deep/c.bin"]
    assert artifact.names("folder/") == ["folder/b.bin", "folder/deep/c.bin"]
    assert artifact.names("deep/") == artifact.names("b.bin") == []


def test_a_file_uri_is_the_same_place_as_its_path(tmp_path):
    made = make(f"file://{tmp_path}/a")
    assert open_artifact(tmp_path / "a", "dataset").digest == made.digest
    assert payload(open_artifact(f"file://{tmp_path}/a/", "dataset")) == FILES


def test_a_published_directory_holds_the_payload_and_the_manifest_only(tmp_path):
    make(tmp_path / "a")
    assert set(on_disk(tmp_path / "a")) == {*FILES, MANIFEST}


@settings(deadline=None, max_examples=30)
@given(files=contents)
def test_any_files_round_trip(tmp_path_factory, files):
    uri = tmp_path_factory.mktemp("any") / "a"
    make(uri, files)
    assert payload(open_artifact(uri, "dataset")) == files


@pytest.mark.parametrize("present", [False, True])
def test_without_a_manifest_there_is_no_artifact(tmp_path, present):
    if present:
        write_file(tmp_path / "a", "a.bin", b"first")
    assert find_manifest(tmp_path / "a") is None
    with pytest.raises(ValueError, match="no complete artifact: manifest.json is missing"):
        open_artifact(tmp_path / "a", "dataset")


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "torn: 7 bytes, manifest says 6": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "altered": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + b"econd"),
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_file_is_refused_by_name(tmp_path, fault):
    make(tmp_path / "a")
    DAMAGES[fault](tmp_path / "a" / "folder/b.bin")
    with pytest.raises(ValueError, match=rf"file 'folder/b\.bin' (is|was) {fault}") as caught:
        open_artifact(tmp_path / "a", "dataset")
    assert "a.bin" not in str(caught.value).replace("folder/b.bin", "")
    assert str(tmp_path / "a") in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(position=st.integers(0, 4), bit=st.integers(0, 7))
def test_one_changed_bit_is_enough(tmp_path_factory, position, bit):
    uri = tmp_path_factory.mktemp("bit") / "a"
    make(uri)
    content = bytearray(FILES["a.bin"])
    content[position] ^= 1 << bit
    (uri / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"file 'a\.bin' was altered"):
        open_artifact(uri, "dataset")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    make(tmp_path / "a")
    (tmp_path / "a" / "a.bin").unlink()
    (tmp_path / "a" / "a.bin").mkdir()
    with pytest.raises(ValueError, match=r"file 'a\.bin' is missing"):
        open_artifact(tmp_path / "a", "dataset")


def test_workers_may_leave_the_comparison_out(tmp_path):
    make(tmp_path / "a")
    (tmp_path / "a" / "a.bin").write_bytes(b"other")
    artifact = open_artifact(tmp_path / "a", "dataset", check=False)
    with pytest.raises(ValueError, match=r"a\.bin"):
        artifact.check_files()


READS = {
    "bytes": lambda artifact, _: artifact.read_bytes("folder/b.bin"),
    "json": lambda artifact, _: artifact.read_json("folder/b.bin"),
    "table": lambda artifact, _: artifact.read_table("folder/b.bin", ["x"]),
    "download": lambda artifact, target: artifact.download("folder", target),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fault", ["torn", "altered"])
def test_without_the_comparison_a_damaged_file_is_refused_when_it_is_read(tmp_path, read, fault):
    make(tmp_path / "a")
    artifact = open_artifact(tmp_path / "a", "dataset", check=False)
    DAMAGES[fault](tmp_path / "a" / "folder/b.bin")
    with pytest.raises(ValueError, match=rf"file 'folder/b\.bin' (is|was) {fault}"):
        READS[read](artifact, tmp_path / "target")
    assert artifact.read_bytes("a.bin") == FILES["a.bin"]


def test_sizes_alone_tell_what_is_missing_or_torn(tmp_path):
    artifact = make(tmp_path / "a")
    DAMAGES["altered"](tmp_path / "a" / "folder/b.bin")
    artifact.check_sizes()
    DAMAGES["torn"](tmp_path / "a" / "folder/b.bin")
    with pytest.raises(ValueError, match=r"file 'folder/b\.bin' is torn: 5 bytes, manifest says 6"):
        artifact.check_sizes()
    DAMAGES["missing"](tmp_path / "a" / "folder/b.bin")
    with pytest.raises(ValueError, match=r"file 'folder/b\.bin' is missing"):
        artifact.check_sizes()


def test_a_file_the_manifest_does_not_name_cannot_be_read(tmp_path):
    artifact = make(tmp_path / "a")
    write_file(tmp_path / "a", "stray.bin", b"of no writer")
    with pytest.raises(ValueError, match=r"has no file 'stray\.bin'"):
        artifact.read_bytes("stray.bin")


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    make(tmp_path / "a", kind="index")
    with pytest.raises(ValueError, match="is a 'index' artifact; a 'checkpoint' is needed"):
        open_artifact(tmp_path / "a", "checkpoint")


def test_a_newer_schema_is_refused_with_both_versions(tmp_path):
    make(tmp_path / "a")
    edit_manifest(tmp_path / "a", schema_version=SCHEMA_VERSION + 6, invention="new")
    with pytest.raises(ValueError, match=r"schema version 7; this release reads up to 1: update"):
        open_artifact(tmp_path / "a", "dataset")


BAD_MANIFESTS = [b"", b"{", b"null", b"[]", b'"dataset"', b"{}", b'{"schema_version": "x"}']


@pytest.mark.parametrize("content", [*BAD_MANIFESTS, b"\xff\xfe\x00", b'{"\xe5\x90'])
def test_a_damaged_manifest_is_refused_by_name(tmp_path, content):
    make(tmp_path / "a")
    (tmp_path / "a" / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: make the artifact again"):
        open_artifact(tmp_path / "a", "dataset")


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_manifest_cut_anywhere_is_refused_by_name(tmp_path_factory, data):
    uri = tmp_path_factory.mktemp("cut") / "a"
    make(uri, config={"名字": "数据"})
    whole = (uri / MANIFEST).read_bytes()
    (uri / MANIFEST).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        open_artifact(uri, "dataset")


@pytest.mark.parametrize("over_an_old_one", [False, True])
def test_a_writer_that_never_published_leaves_nothing_visible(tmp_path, over_an_old_one):
    if over_an_old_one:
        make(tmp_path / "a")
    ArtifactWriter(tmp_path / "a", "dataset").add_bytes("new.bin", b"new")
    assert find_manifest(tmp_path / "a") is None
    with pytest.raises(ValueError, match="no complete artifact"):
        open_artifact(tmp_path / "a", "dataset")


def test_an_unpublished_artifact_can_be_started_again_in_its_place(tmp_path):
    ArtifactWriter(tmp_path / "a", "dataset").add_bytes("left/over.bin", b"old")
    make(tmp_path / "a")
    assert payload(open_artifact(tmp_path / "a", "dataset")) == FILES
    assert set(on_disk(tmp_path / "a")) == {*FILES, MANIFEST}


class DyingDisk(pafs.LocalFileSystem):
    """A disk whose process is killed when `left` of its entries have been deleted."""

    left = 0

    def delete_file(self, path):
        super().delete_file(path)
        self.count_one()

    def delete_dir(self, path):
        super().delete_dir(path)
        self.count_one()

    def delete_dir_contents(self, path, **_):
        for entry in sorted(Path(path).iterdir(), reverse=True):
            self.delete_dir(str(entry)) if entry.is_dir() else self.delete_file(str(entry))

    def count_one(self):
        type(self).left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("deletions", [1, 2, 3])
def test_a_writer_killed_while_it_clears_can_be_started_again(tmp_path, monkeypatch, deletions):
    make(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(DyingDisk, "left", deletions)
        patch.setattr(recsys.artifact.pafs, "LocalFileSystem", DyingDisk)
        with pytest.raises(KeyboardInterrupt):
            ArtifactWriter(tmp_path / "a", "dataset")
    with pytest.raises(ValueError, match=str(tmp_path)):
        open_artifact(tmp_path / "a", "dataset")
    make(tmp_path / "a", {"new.bin": b"new"})
    assert payload(open_artifact(tmp_path / "a", "dataset")) == {"new.bin": b"new"}


@pytest.mark.parametrize(
    "foreign",
    [
        {"holiday.jpg": b"beach"},
        {"folder/holiday.jpg": b"beach"},
        {"manifest.json": b'{"name": "a web page", "version": "1"}', "page.html": b"<html>"},
    ],
)
def test_a_directory_of_other_files_is_refused_and_left_as_it_is(tmp_path, foreign):
    for name, content in foreign.items():
        write_file(tmp_path / "a", name, content)
    with pytest.raises(ValueError, match="holds files that are not an artifact's"):
        ArtifactWriter(tmp_path / "a", "dataset")
    assert on_disk(tmp_path / "a") == foreign


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    make(tmp_path / "a")
    assert payload(open_artifact(tmp_path / "a", "dataset")) == FILES


def test_writing_over_an_artifact_removes_its_files(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "a", {"new.bin": b"new"}, kind="index")
    assert set(on_disk(tmp_path / "a")) == {"new.bin", MANIFEST}
    assert open_artifact(tmp_path / "a", "index").names() == ["new.bin"]


def test_a_damaged_artifact_can_be_written_over(tmp_path):
    made = make(tmp_path / "a")
    (tmp_path / "a" / MANIFEST).write_bytes((tmp_path / "a" / MANIFEST).read_bytes()[:-9])
    make(tmp_path / "a")
    assert open_artifact(tmp_path / "a", "dataset").digest == made.digest


def test_files_written_elsewhere_are_taken_in_by_their_entries(tmp_path):
    writer = ArtifactWriter(tmp_path / "a", "dataset")
    entry = write_file(tmp_path / "a", "train/part.bin", b"part")
    write_file(tmp_path / "a", "train/lost.bin", b"of a task that was tried again")
    assert (entry.path, entry.size) == ("train/part.bin", 4)
    assert entry.sha256 == hashlib.sha256(b"part").hexdigest()
    writer.add_entries([entry, entry]).publish({}, {})
    assert payload(open_artifact(tmp_path / "a", "dataset")) == {"train/part.bin": b"part"}


def test_a_file_is_replaced_as_a_whole(tmp_path):
    write_file(tmp_path / "a", "x/b.bin", b"a long first content")
    write_file(tmp_path / "a", "x/b.bin", b"short")
    assert on_disk(tmp_path / "a") == {"x/b.bin": b"short"}


def test_dropped_files_are_gone_and_others_stay(tmp_path):
    writer = ArtifactWriter(tmp_path / "a", "dataset")
    for name in ("test/1.bin", "test/2.bin", "tests.bin", "train/test/1.bin"):
        writer.add_bytes(name, name.encode())
    writer.drop("test/")
    writer.add_bytes("test/3.bin", b"given")
    opened = payload(writer.publish({}, {}))
    assert set(opened) == {"test/3.bin", "tests.bin", "train/test/1.bin"}
    assert set(on_disk(tmp_path / "a")) == {*opened, MANIFEST}


def test_a_download_is_the_files_of_one_folder(tmp_path):
    names = ("model/config.json", "model/deep/x.bin", "model_2/y.bin", "z.bin")
    artifact = make(tmp_path / "a", {name: name.encode() for name in names})
    place = artifact.download("model", tmp_path / "target")
    assert place == tmp_path / "target" / "model"
    wanted = {"model/config.json": b"model/config.json", "model/deep/x.bin": b"model/deep/x.bin"}
    assert on_disk(tmp_path / "target") == wanted


def test_while_a_writer_works_the_directory_says_so(tmp_path):
    ArtifactWriter(tmp_path / "a", "dataset")
    assert (tmp_path / "a" / INCOMPLETE).is_file()

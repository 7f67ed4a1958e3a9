"""Storage: errors that name the file and the way out, nothing half written, no wrong bytes."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys.artifact import MANIFEST, ArtifactWriter, find_manifest, open_artifact
from recsys.config import StorageConfig
from recsys.data.sources import INTERACTION_COLUMNS, find_source
from recsys.storage import (
    StorageError,
    configure_storage,
    download,
    filesystem,
    list_files,
    read_bytes,
    storage_errors,
    upload,
    write_bytes,
)
from tests.faults import ACCESS_DENIED, EXPIRED_TOKEN, INTERNAL_ERROR, always
from tests.storage.conftest import BODY, CUT, settings

# moto's own server uses names that werkzeug and botocore are about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TITLES = [
    "nul \x00 inside",
    "\U0001f6cd\ufe0f bag",
    "\u05e9\u05dc\u05d5\u05dd \u202eabc",
    "热水壶",
    "",
]


def make_artifact(uri: str):
    writer = ArtifactWriter(uri, "dataset")
    for number in range(4):
        writer.add_bytes(f"train/{number}.bin", BODY + bytes([number]))
    return writer.publish({}, {})


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hush@shop/run",
        "s3://AKIA:hu/sh@shop/run",
        "s3://hush@shop",
        "s3a://AKIA:hush@shop/run",
        "gs://me:hush@shop/run",
        "s3://shop/run?secret_key=hush",
    ],
)
def test_a_uri_with_a_secret_is_refused_without_repeating_it(uri):
    with pytest.raises(ValueError, match="://") as caught:
        filesystem(uri)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hush" not in str(caught.value)
    assert "AKIA" not in shown.replace(f'"{uri}"', "")


def test_a_uri_without_a_bucket_is_refused():
    with pytest.raises(ValueError, match="has no bucket: write s3://bucket/path"):
        filesystem("s3:///run")


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "minio:9000"},
        {"endpoint": "http://key:hush@minio:9000"},
        {"max_attempts": 0},
        {"max_attempts": 101},
        {"request_timeout_s": 0.1},
        {"secret_key": "hush"},
    ],
)
def test_settings_out_of_bounds_and_credentials_are_no_settings(wrong):
    with pytest.raises(ValidationError):
        StorageConfig(**wrong)


def test_a_key_is_what_was_written(s3, place):
    names = ["a b", "50%20", "数据/喂", "\U0001f6cd", "plus+and&"]
    for name in names:
        write_bytes(f"{place}/{name}", name.encode())
    root = place.removeprefix("s3://")
    assert {info.path for info in list_files(place)} == {f"{root}/{name}" for name in names}
    assert [read_bytes(f"{place}/{name}") for name in names] == [n.encode() for n in names]


def test_odd_titles_survive_the_way_to_s3_and_back(s3, place):
    table = pa.table({"item_id": TITLES, "title": TITLES})
    writer = ArtifactWriter(place, "dataset")
    writer.add_table("items.parquet", table)
    writer.add_json("标题.json", TITLES)
    writer.publish({}, {})
    opened = open_artifact(place, "dataset")
    assert opened.read_table("items.parquet").equals(table)
    assert opened.read_json("标题.json") == TITLES


def _told_by(read: Callable[[], object]) -> str:
    """What a read is refused with; once in a while memory still holds what the answer left out."""
    for _ in range(10):
        junk = [b"\xee" * len(BODY) for _ in range(64)]
        junk += [pa.allocate_buffer(len(BODY)) for _ in junk]
        del junk
        try:
            read()
        except ValueError as error:
            return str(error)
    return ""


def test_a_short_body_that_looks_whole_is_never_taken_for_the_file(s3, place, tmp_path):
    """pyarrow fills the missing part with what its memory held before."""
    make_artifact(place)
    s3.begin(always(CUT, "GET", "/2.bin"))
    unchecked = open_artifact(place, "dataset", check=False)
    for read in (
        lambda: open_artifact(place, "dataset"),
        lambda: unchecked.read_bytes("train/2.bin"),
        lambda: unchecked.read_table("train/2.bin"),
        lambda: unchecked.download("train", tmp_path),
    ):
        assert "file 'train/2.bin' was altered" in _told_by(read)
    assert unchecked.read_bytes("train/1.bin") == BODY + b"\x01"


def test_the_sizes_of_all_files_cost_one_request(s3, place):
    artifact = make_artifact(place)
    s3.begin(None)
    artifact.check_sizes()
    assert sum(s3.seen.values()) == 1


def _source(uri: str) -> None:
    find_source(uri, "interactions", INTERACTION_COLUMNS)


@pytest.mark.parametrize("fault", [EXPIRED_TOKEN, ACCESS_DENIED], ids=lambda fault: fault.code)
def test_refused_credentials_fail_at_once_and_are_not_shown(
    s3, place, waits, fault, monkeypatch, capfd, caplog
):
    secrets = {"AWS_SECRET_ACCESS_KEY": "hush-hush-key", "AWS_SESSION_TOKEN": "hush-hush-token"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    s3.begin(always(fault))
    configure_storage(settings(s3, max_attempts=100))  # a client of its own, with these secrets
    told = []
    uses = (read_bytes, list_files, find_manifest, lambda uri: write_bytes(uri, b"x"), _source)
    for use in uses:
        with pytest.raises(StorageError, match=r"expired.* in the environment") as caught:
            use(f"{place}/a")
        assert f"{place}/a" in str(caught.value)
        told += traceback.format_exception(caught.value)
    assert (s3.broken, waits) == (len(uses), [])
    assert "hush-hush" not in "".join([*told, *capfd.readouterr(), caplog.text])


def test_a_bucket_that_is_not_there_is_told_at_once(s3, waits):
    for use in (read_bytes, list_files, lambda uri: write_bytes(uri, b"x")):
        with pytest.raises(
            StorageError, match=r"^s3://nowhere/a: there is no such (file or )?buck"
        ):
            use("s3://nowhere/a")
    assert waits == []


def test_a_bucket_that_is_empty_lists_nothing(s3, place):
    assert list_files(place) == []


def test_a_service_that_is_not_there_is_told(s3, place):
    configure_storage(settings(s3, endpoint="http://127.0.0.1:1", max_attempts=2))
    with pytest.raises(StorageError, match=rf"^{place}/a: .*cannot be reached.*storage\.endpoint"):
        read_bytes(f"{place}/a")


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_upload_that_fails_leaves_nothing_visible(s3, place, method, tmp_path):
    (tmp_path / "local.bin").write_bytes(BODY)
    writer = ArtifactWriter(place, "dataset")
    s3.begin(always(INTERNAL_ERROR, method, ".bin"))
    with pytest.raises(StorageError, match=rf"^{place}/train/a\.bin: the service failed"):
        writer.add_bytes("train/a.bin", BODY)
    with pytest.raises(StorageError, match=rf"^{place}/train/b\.bin: the service failed"):
        upload(tmp_path / "local.bin", f"{place}/train/b.bin")
    s3.begin(None)
    assert [info.base_name for info in list_files(place)] == ["INCOMPLETE"]
    assert find_manifest(place) is None


def test_files_go_up_and_down_as_they_are(s3, place, tmp_path):
    local, back = tmp_path / "local.bin", tmp_path / "deep" / "back.bin"
    local.write_bytes(BODY * 100)
    upload(local, f"{place}/deep/a.bin")
    download(f"{place}/deep/a.bin", back)
    assert back.read_bytes() == BODY * 100
    assert [path.name for path in back.parent.iterdir()] == ["back.bin"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from recsys.artifact import ArtifactWriter
from recsys.storage import StorageError

writer = ArtifactWriter(sys.argv[1], "dataset")
writer.add_bytes("small.bin", b"fits")
Path(sys.argv[2], "large.bin").write_bytes(bytes(20_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for write in (
    lambda: writer.add_bytes("large.bin", bytes(20_000)),
    lambda: writer.add_directory(Path(sys.argv[2]), "model"),
    lambda: writer.publish({"long": "x" * 20_000}, {}),
):
    try:
        write()
    except StorageError as error:
        print(error)
"""


def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path):
    out, source = tmp_path / "out", tmp_path / "source"
    source.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(out), str(source)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.splitlines()
    names = ["large.bin", "model/large.bin", MANIFEST]
    assert [line.split(": ")[0] for line in told] == [f"{out}/{name}" for name in names]
    assert all(": no room for 20" in line and "free the disk" in line for line in told)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left == {"INCOMPLETE", "small.bin"}
    assert find_manifest(out) is None


def test_the_kernels_own_word_for_a_full_disk_is_understood():
    with (
        pytest.raises(StorageError, match=r"^/dev/full: no room for 7 bytes") as caught,
        storage_errors("/dev/full", 7),
    ):
        Path("/dev/full").write_bytes(b"1234567")
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_two_writers_of_one_file_never_mix(tmp_path):
    path = str(tmp_path / "a")
    contents = [bytes([number]) * 200_000 for number in range(4)]

    def write_and_read(number: int) -> bool:
        write_bytes(path, contents[number % 4])
        return read_bytes(path) in contents

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(200)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_local_file_in_the_way_is_named(tmp_path):
    write_bytes(str(tmp_path / "file"), b"x")
    with pytest.raises(StorageError, match=rf"^{tmp_path}/file/a: "):
        write_bytes(str(tmp_path / "file" / "a"), b"x")
    with pytest.raises(StorageError, match=rf"^{tmp_path}/none: there is no such file"):
        read_bytes(str(tmp_path / "none"))


def test_google_cloud_storage_takes_keys_and_the_retry_limit():
    configure_storage(StorageConfig(retry_limit_s=7))
    try:
        fs, path = filesystem("gs://shop/数 据")
    finally:
        configure_storage(StorageConfig())
    assert path == "shop/数 据"
    _, (options,) = pickle.loads(pickle.dumps(fs)).__reduce__()
    assert options["retry_time_limit"].total_seconds() == 7

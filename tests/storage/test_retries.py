"""Retries: as many as the setting says, with jitter, where they help, and of whole operations."""

from __future__ import annotations

import errno
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.artifact import ArtifactWriter, open_artifact, parquet_bytes
from recsys.config import StorageConfig
from recsys.data.eval_rows import find_eval_rows, read_eval_rows
from recsys.data.sources import ITEM_COLUMNS, Piece, find_source, read_piece
from recsys.data.vocabulary import ItemVocabulary
from recsys.storage import (
    STEADY_REQUESTS,
    StorageError,
    configure_storage,
    download,
    filesystem,
    has_file,
    list_files,
    read_bytes,
    retried,
    steady_filesystem,
    upload,
    write_bytes,
)
from tests.faults import INTERNAL_ERROR, SLOW_DOWN, Fault, Plan, always, first, share
from tests.storage.conftest import BODY, RESET, settings

# moto's own server uses names that werkzeug and botocore are about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ITEMS = pa.table({"item_id": ["a", "b"], "title": ["Kettle", "热水壶"]})
EVAL_ROWS = pa.table({"user_id": ["u"], "history_item_ids": [["a"]], "item_id": ["b"]})


def next_of(fault: Fault, times: int, method: str = "") -> Plan:
    """Break the next `times` requests of this method, whatever their paths."""
    left = iter(range(times))
    return lambda request: (
        fault if method in request.method and next(left, None) is not None else None
    )


@pytest.mark.parametrize(
    ("max_attempts", "num_requests", "num_waits"), [(1, 1, 0), (3, 3, 0), (5, 5, 0), (6, 10, 1)]
)
@pytest.mark.parametrize(
    ("use", "method"),
    [(lambda uri: write_bytes(uri, b"x"), "POST"), (list_files, "GET"), (read_bytes, "HEAD")],
    ids=["write", "list", "read"],
)
def test_attempts_end_at_the_setting(
    s3, place, waits, use, method, max_attempts, num_requests, num_waits
):
    s3.begin(always(SLOW_DOWN, method))
    configure_storage(settings(s3, max_attempts=max_attempts))
    with pytest.raises(StorageError, match=rf"^{place}/a: the service asks to slow down.*raise st"):
        use(f"{place}/a")
    assert (s3.broken, len(waits)) == (num_requests, num_waits)


def test_waits_are_random_below_a_limit_that_doubles_up_to_twenty_seconds(waits):
    def refuse() -> None:
        raise OSError("AWS Error SLOW_DOWN during GetObject operation: ")

    random.seed(0)
    configure_storage(StorageConfig(max_attempts=40))
    for _ in range(200):
        with pytest.raises(OSError, match="SLOW_DOWN"):
            retried(refuse)
    waits_RW = np.array(waits).reshape(200, 7)
    limits_W = np.array([1, 2, 4, 8, 16, 20, 20])
    assert ((waits_RW >= 0) & (waits_RW <= limits_W)).all()
    assert np.quantile(waits_RW / limits_W, [0.25, 0.5, 0.75], axis=0) == pytest.approx(
        np.array([0.25, 0.5, 0.75])[:, None].repeat(7, axis=1), abs=0.12
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOSPC, "No space left on device, AWS Error SLOW_DOWN"),
        FileNotFoundError("AWS Error SLOW_DOWN: no such file"),
        OSError("AWS Error ACCESS_DENIED during GetObject operation: (HTTP status 503)"),
        OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation"),
        OSError("google::cloud::Status(UNAVAILABLE: retry policy exhausted)"),
        OSError("Couldn't deserialize thrift"),
        ValueError("AWS Error SLOW_DOWN"),
    ],
    ids=str,
)
def test_trouble_that_another_try_would_not_mend_is_told_at_once(waits, error):
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        retried(fail)
    assert caught.value is error
    assert (len(calls), waits) == (1, [])


def _read_rows(uri: str, _) -> object:
    found = find_eval_rows(uri)
    assert found is not None
    return read_eval_rows(found, ItemVocabulary(pa.array(["a", "b"])), max_history=5)


def _find_items(uri: str, _) -> object:
    found = find_source(uri, "items", ITEM_COLUMNS)
    return found.files, found.pieces, found.num_rows


def _up(uri: str, folder) -> object:
    (folder / "up").write_bytes(BODY)
    upload(folder / "up", f"{uri}/new")
    return read_bytes(f"{uri}/new")


def _down(uri: str, folder) -> object:
    download(f"{uri}/body", folder / "down")
    return (folder / "down").read_bytes(), [path.name for path in folder.glob("*down*")]


@pytest.mark.parametrize(
    "use",
    [
        lambda uri, _: read_bytes(f"{uri}/body"),
        lambda uri, _: (write_bytes(f"{uri}/new", BODY), read_bytes(f"{uri}/new")),
        lambda uri, _: [info.size for info in list_files(f"{uri}/artifact")],
        lambda uri, _: (has_file(f"{uri}/body"), has_file(f"{uri}/none")),
        lambda uri, _: open_artifact(f"{uri}/artifact", "dataset").read_bytes("a.bin"),
        _up,
        _down,
        _find_items,
        _read_rows,
    ],
    ids=["read", "write", "list", "ask", "check", "upload", "download", "find", "eval-rows"],
)
def test_an_operation_is_done_again_when_the_client_has_given_up(s3, place, waits, use, tmp_path):
    write_bytes(f"{place}/body", BODY)
    write_bytes(f"{place}/items.parquet", parquet_bytes(ITEMS))
    write_bytes(f"{place}/eval_rows.parquet", parquet_bytes(EVAL_ROWS))
    writer = ArtifactWriter(f"{place}/artifact", "dataset")
    writer.add_bytes("a.bin", BODY)
    writer.publish({}, {})
    expected = use(place, tmp_path)
    configure_storage(settings(s3, max_attempts=15))
    # The client does not know the last, which proxies send, and leaves it to us at once.
    for fault, times in [(SLOW_DOWN, 5), (INTERNAL_ERROR, 5), (Fault(502, "BadGateway"), 2)]:
        s3.begin(next_of(fault, times))
        assert use(place, tmp_path) == expected
        assert s3.broken == times
    assert len(waits) >= 2


def _streamed(uri: str, folder) -> bytes:
    download(f"{uri}/body", folder / "back")
    return (folder / "back").read_bytes()


def _checked(uri: str, _) -> bytes:
    return open_artifact(f"{uri}/artifact", "dataset").read_bytes("a.bin")


@pytest.mark.parametrize(
    ("use", "file"),
    [(lambda uri, _: read_bytes(f"{uri}/body"), "body"), (_streamed, "body"), (_checked, ".bin")],
    ids=["read", "download", "check"],
)
def test_a_body_that_breaks_off_too_often_for_the_client_is_read_again(
    s3, place, waits, use, file, tmp_path
):
    write_bytes(f"{place}/body", BODY)
    writer = ArtifactWriter(f"{place}/artifact", "dataset")
    writer.add_bytes("a.bin", BODY)
    writer.publish({}, {})
    s3.begin(first(RESET, "GET", file, times=5))
    assert use(place, tmp_path) == BODY
    assert (s3.broken, len(waits)) == (5, 1)


def test_an_upload_that_broke_off_begins_again_at_the_first_byte(s3, place, waits, tmp_path):
    content = random.Random(0).randbytes(12 << 20)  # two parts
    (tmp_path / "large").write_bytes(content)
    for use in (
        lambda: upload(tmp_path / "large", f"{place}/large"),
        lambda: write_bytes(f"{place}/large", content),
    ):
        s3.begin(next_of(SLOW_DOWN, times=9, method="PUT"))
        use()
        assert s3.broken == 9
        assert read_bytes(f"{place}/large") == content
    assert len(waits) == 2


def _write_piece(place: str) -> tuple[pa.Table, Piece]:
    values = np.random.default_rng(0).integers(0, 1 << 40, 40_000).astype(str)
    table = pa.table({"item_id": values, "other": values})
    fs, path = filesystem(f"{place}/items.parquet")
    with fs.open_output_stream(path) as stream:
        pq.write_table(table, stream, row_group_size=10_000)
    return table.slice(10_000, 20_000).select(["item_id"]), Piece(path, 1, 3)


def test_a_piece_that_breaks_off_in_the_middle_is_read_again_whole(s3, place, waits):
    rows, piece = _write_piece(place)
    fs = filesystem(place)[0]
    # The first request reads the footer. Nine are five for one of two, and no five after that.
    s3.begin(lambda it: RESET if it.method == "GET" and 1 <= it.number <= 9 else None)
    assert read_piece(fs, piece, ["item_id"]).equals(rows)
    assert (s3.broken, len(waits)) == (9, 1)
    s3.begin(lambda it: RESET if it.method == "GET" and it.number else None)
    with pytest.raises(StorageError, match=rf"^{piece.path}: the answer broke off in the middle"):
        read_piece(fs, piece, ["item_id"])


def make_artifact(uri: str):
    writer = ArtifactWriter(uri, "dataset")
    for number in range(4):
        writer.add_bytes(f"train/{number}.bin", BODY + bytes([number]))
    return writer.publish({}, {})


@pytest.mark.parametrize("part", [0.2, 0.33])
@pytest.mark.parametrize("seed", range(2))
def test_in_a_storm_of_broken_requests_an_artifact_is_the_same(s3, place, part, seed, tmp_path):
    s3.begin(share([SLOW_DOWN, INTERNAL_ERROR, RESET], part, seed))
    configure_storage(settings(s3, max_attempts=30))
    made = make_artifact(place)
    opened = open_artifact(place, "dataset")
    assert s3.broken > 3
    assert opened.digest == made.digest == make_artifact(str(tmp_path / "a")).digest
    assert opened.read_bytes("train/3.bin") == BODY + b"\x03"


def test_a_filesystem_still_retries_after_two_hundred_retries(s3, place, waits):
    s3.begin(first(SLOW_DOWN, "PUT"))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: write_bytes(f"{place}/{n}", b"x"), range(200)))
    assert (s3.broken, waits) == (200, [])
    assert len(list_files(place)) == 200


@pytest.mark.parametrize(
    ("open_place", "num_requests"), [(filesystem, 5), (steady_filesystem, 7)], ids=["own", "steady"]
)
def test_a_steady_filesystem_is_patient_by_itself(s3, place, waits, open_place, num_requests):
    configure_storage(settings(s3, max_attempts=7))
    fs, path = open_place(f"{place}/a")
    s3.begin(always(SLOW_DOWN))
    with pytest.raises(OSError, match="HTTP status 503"):
        fs.get_file_info(path)
    assert (s3.broken, waits) == (num_requests, [])


def test_no_setting_makes_a_steady_filesystem_wait_for_hours(s3, place):
    configure_storage(settings(s3, max_attempts=100))
    requests = steady_filesystem(place)[0].max_attempts
    assert requests == STEADY_REQUESTS
    assert sum(0.05 * 2**n for n in range(requests - 2)) < 60


def test_a_copy_in_another_process_keeps_attempts_and_time_out(s3, place):
    write_bytes(f"{place}/a", BODY)
    fs, path = steady_filesystem(f"{place}/a")
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fs))))
    s3.begin(first(SLOW_DOWN, "HEAD", times=5))
    with copy.open_input_file(path) as stream:
        assert stream.read() == BODY
    s3.begin(first(Fault(stall_s=2.5), "GET"))
    with copy.open_input_file(path) as stream:
        assert stream.read() == BODY
    assert sum(s3.seen.values()) == 3


def test_a_stall_beyond_the_time_out_is_tried_again(s3, place, waits):
    write_bytes(f"{place}/a", BODY)
    s3.begin(first(Fault(stall_s=2.5), "GET"))
    assert read_bytes(f"{place}/a") == BODY
    assert s3.seen["GET", f"/{place.removeprefix('s3://')}/a"] == 2
    assert waits == []


def told_by(use: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as caught:
        use()
    return str(caught.value)


def test_a_lasting_stall_is_told_with_the_setting(s3, place):
    write_bytes(f"{place}/a", BODY)
    s3.begin(always(Fault(stall_s=2.5), "GET"))
    configure_storage(settings(s3, max_attempts=2))
    told = told_by(lambda: read_bytes(f"{place}/a"))
    assert told.startswith(f"{place}/a: no answer in time")
    assert "storage.request_timeout_s" in told


def test_a_body_that_always_breaks_off_is_named(s3, place):
    write_bytes(f"{place}/a", BODY)
    s3.begin(always(RESET, "GET"))
    told = told_by(lambda: read_bytes(f"{place}/a"))
    assert told.startswith(f"{place}/a: the answer broke off in the middle")
    assert s3.broken == 10

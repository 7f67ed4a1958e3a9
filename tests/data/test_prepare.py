"""The prepare stage on a real Ray: counts, quarantine, splits, determinism."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.artifact import Artifact, find_manifest, open_artifact
from recsys.config import PrepareConfig, SplitConfig
from recsys.data.collate import histories_of, targets_of
from recsys.data.prepare import prepare
from tests.conftest import write_shop

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

ITEMS = {
    "item_id": ["a", "b", "c", "d"],
    "title": ["red hammer", "blue nail", "锤子", None],
    "brand": ["brand", None, None, None],
}
SMALL = PrepareConfig(max_history=4, max_item_tokens=8, num_partitions=2)


def _interactions(rows: list[tuple]) -> dict:
    users, items, times = zip(*rows, strict=True)
    return {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(items, pa.string()),
        "timestamp": pa.array(times, pa.int64()),
    }


GOOD = [("u1", "a", 10), ("u1", "b", 20), ("u1", "c", 30), ("u2", "b", 15), ("u2", "d", 5)]


def _prepare(tmp_path: Path, backbone: str, rows: list[tuple], config: PrepareConfig) -> Artifact:
    data = write_shop(tmp_path / "data", _interactions(rows), ITEMS)
    prepare(config, backbone, data, str(tmp_path / "dataset"))
    return open_artifact(tmp_path / "dataset", "dataset")


def _rows(dataset: Artifact, part: str) -> pa.Table:
    return pa.concat_tables([dataset.read_table(name) for name in dataset.names(f"{part}/")])


def test_every_row_is_kept_quarantined_or_a_dropped_duplicate(
    tmp_path: Path, tiny_backbone: str
) -> None:
    bad = [
        (None, "a", 1),
        ("u3", None, 2),
        ("u3", "unheard", 3),
        ("u3", "a", -5),
        ("u3", "a", 9_000_000_000),
        ("u3", "a", None),
    ]
    config = SMALL.model_copy(update={"max_quarantine_share": 0.9})
    dataset = _prepare(tmp_path, tiny_backbone, GOOD + bad + GOOD[:2], config)

    counts = dataset.read_json("quality.json")["tables"]["interactions"]
    assert (counts["read"], counts["kept"], counts["quarantined"]) == (13, 5, 6)
    assert counts["dropped"] == {"duplicates": 2, "k_core": 0}
    quarantined = _rows(dataset, "quarantine/interactions").to_pylist()
    assert {r["source_file"].rsplit("/")[-1] for r in quarantined} == {"interactions.parquet"}
    assert {(r["user_id"], r["item_id"], r["timestamp"]): r["rule"] for r in quarantined} == {
        (None, "a", 1): "null_user_id",
        ("u3", None, 2): "null_item_id",
        ("u3", "unheard", 3): "unknown_item",
        ("u3", "a", -5): "negative_timestamp",
        ("u3", "a", 9_000_000_000): "future_timestamp",
        ("u3", "a", None): "no_time_or_order",
    }


def test_a_mostly_bad_table_is_refused_and_leaves_no_dataset(
    tmp_path: Path, tiny_backbone: str
) -> None:
    before_1970 = [(user, item, -time) for user, item, time in GOOD]
    with pytest.raises(ValueError, match=r"negative_timestamp: 5 rows \(timestamps are 1970"):
        _prepare(tmp_path, tiny_backbone, before_1970, SMALL)
    assert find_manifest(tmp_path / "dataset") is None


def test_milliseconds_become_seconds_and_the_report_says_so(
    tmp_path: Path, tiny_backbone: str
) -> None:
    rows = [(user, item, 1_700_000_000 + time) for user, item, time in GOOD]
    seconds = _prepare(tmp_path / "s", tiny_backbone, rows, SMALL)
    mixed = [(u, i, t * 1000 if n % 2 else t) for n, (u, i, t) in enumerate(rows)]
    dataset = _prepare(tmp_path / "ms", tiny_backbone, mixed, SMALL)
    assert dataset.digest == seconds.digest
    files = dataset.read_json("quality.json")["files"]
    assert files == {f"timestamps in {u}": ["interactions.parquet"] for u in ("ms", "s")}
    assert seconds.read_json("quality.json")["files"] == {}


def test_leave_last_out_histories_are_what_came_before(tmp_path: Path, tiny_backbone: str) -> None:
    dataset = _prepare(tmp_path, tiny_backbone, GOOD, SMALL)
    test, valid = _rows(dataset, "test"), _rows(dataset, "valid")
    assert test["user_id"].to_pylist() == ["u1"]  # u2 has too few events to hold any out
    assert histories_of(test)[0].item_indexes.tolist() == [0, 1]
    assert [t.tolist() for t in targets_of(test)] == [[2]]
    assert histories_of(valid)[0].item_indexes.tolist() == [0]
    train = {r["user_id"]: r["item_indexes"] for r in _rows(dataset, "train").to_pylist()}
    assert train == {"u2": [3, 1]}  # u1 keeps one training event, which predicts nothing
    counts = dataset.read_table("items.parquet")["train_count"].to_pylist()
    assert counts == [1, 1, 0, 1]


def test_a_time_split_holds_nothing_of_the_test_window_in_training(
    tmp_path: Path, tiny_backbone: str
) -> None:
    day = 86_400
    rows = [("u1", "a", 0), ("u1", "b", day), ("u1", "c", 8 * day), ("u1", "d", 10 * day - 1)]
    split = SplitConfig(strategy="time", test_days=3, valid_days=3)
    dataset = _prepare(tmp_path, tiny_backbone, rows, SMALL.model_copy(update={"split": split}))
    assert dataset.manifest.facts["split"]["test_from"] == 7 * day
    assert _rows(dataset, "train")["item_indexes"].to_pylist() == [[0, 1]]
    assert [t.tolist() for t in targets_of(_rows(dataset, "test"))] == [[2, 3]]


def test_the_digest_depends_on_the_rows_and_not_on_their_files(
    tmp_path: Path, tiny_backbone: str
) -> None:
    rows = [(f"u{n % 17}", "abcd"[n % 4], n // 3) for n in range(200)]
    first = _prepare(tmp_path / "one", tiny_backbone, rows, SMALL)
    data = write_shop(tmp_path / "two" / "data", _interactions(rows), ITEMS)
    table = pq.read_table(f"{data}/interactions.parquet")
    Path(f"{data}/interactions.parquet").unlink()
    Path(f"{data}/interactions").mkdir()
    for number, start in enumerate(range(150, -1, -50)):
        path = f"{data}/interactions/{number}.parquet"
        pq.write_table(table.slice(start, 50), path, row_group_size=7)
    second = prepare(SMALL, tiny_backbone, data, str(tmp_path / "two" / "dataset"))
    assert second.digest == first.digest


ON_ONE_CPU = """
import sys, ray
from recsys.config import PrepareConfig
from recsys.data.prepare import prepare
ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
config = PrepareConfig(max_history=4, max_item_tokens=8, num_partitions=2)
print(prepare(config, *sys.argv[1:]).digest)
"""


def test_the_digest_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, tiny_backbone: str
) -> None:
    rows = [(f"u{n % 17}", "abcd"[n % 4], n // 3) for n in range(200)]
    here = _prepare(tmp_path, tiny_backbone, [*rows, (None, "a", 1)], SMALL)
    places = [tiny_backbone, str(tmp_path / "data"), str(tmp_path / "other")]
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_CPU, *places], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == here.digest


def test_given_eval_rows_take_the_place_of_the_split(tmp_path: Path, tiny_backbone: str) -> None:
    columns = _interactions(GOOD) | {"split": ["train", "train", "test", "valid", "train"]}
    data = write_shop(tmp_path / "data", columns, ITEMS)
    rows = {
        "user_id": ["x", "y"],
        "history_item_ids": [["a", "gone", "d"], ["b"]],
        "item_id": ["c", "gone"],
    }
    pq.write_table(pa.table(rows), f"{data}/eval_rows.parquet")
    config = SMALL.model_copy(update={"split": SplitConfig(strategy="column")})
    dataset = prepare(config, tiny_backbone, data, str(tmp_path / "dataset"))
    test = _rows(dataset, "test")
    assert test["user_id"].to_pylist() == ["x"]
    assert histories_of(test)[0].item_indexes.tolist() == [0, 3]
    assert dataset.manifest.facts["rows"] == {"train": 1, "valid": 1, "test": 1}
    assert dataset.read_table("quarantine/eval_rows.parquet")["rule"].to_pylist() == [
        "unknown_item"
    ]


def test_long_histories_become_windows_that_predict_every_event(
    tmp_path: Path, tiny_backbone: str
) -> None:
    rows = [("u", "abcd"[n % 4], n) for n in range(12)]
    dataset = _prepare(tmp_path, tiny_backbone, rows, SMALL)
    windows = _rows(dataset, "train")["timestamps"].to_pylist()
    assert sorted(windows) == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9]]


def test_items_carry_text_and_tokens_in_index_order(tmp_path: Path, tiny_backbone: str) -> None:
    items = _prepare(tmp_path, tiny_backbone, GOOD, SMALL).read_table("items.parquet")
    assert items["item_id"].to_pylist() == ["a", "b", "c", "d"]
    assert items["text"].to_pylist()[0] == "title: red hammer\nbrand: brand"
    assert items["text"].to_pylist()[3] == ""
    assert all(0 < len(tokens) <= 8 for tokens in items["token_ids"].to_pylist())

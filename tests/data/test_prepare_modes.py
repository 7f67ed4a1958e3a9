"""Prepare on a real Ray: going on from a dataset, k-core, robots, cuts by time, pseudonyms."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import schema
from recsys.artifact import Artifact, find_manifest, open_artifact
from recsys.config import PrepareConfig, SplitConfig
from recsys.data.prepare import Before, prepare

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

CONFIG = PrepareConfig(max_history=4, max_item_tokens=8, num_partitions=2)
DAY = schema.SECONDS_A_DAY
Rows = Sequence[tuple[str | None, str, int]]


def _shop(folder: Path, days: dict[str, Rows], items: dict[str, str]) -> str:
    """Raw tables with one file a day; items are ids with titles."""
    for day, rows in days.items():
        path = folder / f"interactions/date={day}/part.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        users, ids, times = zip(*rows, strict=True)
        columns = {"user_id": pa.array(users, pa.string()), "item_id": ids, "timestamp": times}
        pq.write_table(pa.table(columns), path)
    pq.write_table(
        pa.table({"item_id": list(items), "title": list(items.values())}), folder / "items.parquet"
    )
    return str(folder)


def _rows(dataset: Artifact, part: str) -> pa.Table:
    return pa.concat_tables([dataset.read_table(name) for name in dataset.names(f"{part}/")])


def _random_days(num_days: int) -> dict[str, Rows]:
    random = np.random.default_rng(0)
    return {
        str(day): [
            (
                f"u{random.integers(9)}",
                "abcd"[random.integers(4)],
                day * DAY + int(random.integers(50)),
            )
            for _ in range(40)
        ]
        for day in range(num_days)
    }


ITEMS = {"a": "red hammer", "b": "blue nail", "c": "锤子", "d": "green saw"}


@pytest.mark.parametrize("strategy", ["leave_last_out", "time"])
def test_an_incremental_run_reads_new_files_alone_and_equals_a_full_one(
    tmp_path: Path, tiny_backbone: str, strategy: str
) -> None:
    config = CONFIG.model_copy(
        update={
            "split": SplitConfig(strategy=strategy, test_days=1, valid_days=1),
            "max_events_per_day": 12,
            "max_quarantine_share": 0.9,
        }
    )
    days = _random_days(3)
    days["0"] = [*days["0"], ("u1", "e", 7), (None, "a", 8), days["0"][0]]
    first_items = {name: title for name, title in ITEMS.items() if name != "d"}
    data = _shop(tmp_path / "data", {"0": days["0"], "1": days["1"]}, first_items)
    first = prepare(config, tiny_backbone, data, str(tmp_path / "first"))

    # Later: a new day with old events once more, and items that were unheard of before.
    days["2"] = [*days["2"], *days["1"][:3]]
    _shop(tmp_path / "data", {"2": days["2"]}, {**ITEMS, "e": "small drill"})
    full = prepare(config, tiny_backbone, data, str(tmp_path / "full"), Before(first))
    for day in ("0", "1"):
        _make_unreadable(Path(data) / f"interactions/date={day}/part.parquet")
    more = prepare(config, tiny_backbone, data, str(tmp_path / "more"), Before(first, True))

    assert more.digest == full.digest
    tables = [d.read_json("quality.json")["tables"]["interactions"] for d in (more, full)]
    assert tables[0] == tables[1]
    assert tables[0]["dropped"]["duplicates"] >= 4
    assert open_artifact(tmp_path / "more", "dataset").manifest.parents["previous"] == first.digest


def _make_unreadable(path: Path) -> None:
    """Zeros in place of the content, which nobody notices who does not open the file."""
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_incremental_run_is_refused_where_it_would_not_equal_a_full_one(
    tmp_path: Path, tiny_backbone: str
) -> None:
    data = _shop(tmp_path / "data", _random_days(2), ITEMS)
    first = prepare(CONFIG, tiny_backbone, data, str(tmp_path / "first"))
    other = CONFIG.model_copy(update={"max_history": 5})
    with pytest.raises(ValueError, match=r"another config \(prepare\): prepare in full"):
        prepare(other, tiny_backbone, data, str(tmp_path / "out"), Before(first, True))
    with pytest.raises(ValueError, match="without a user key, and the key given"):
        prepare(CONFIG, tiny_backbone, data, str(tmp_path / "out"), Before(first, True), b"k" * 16)
    (Path(data) / "interactions/date=0/part.parquet").unlink()
    with pytest.raises(ValueError, match=r"1 files that .*date=0/part.parquet: prepare in full"):
        prepare(CONFIG, tiny_backbone, data, str(tmp_path / "out"), Before(first, True))
    assert find_manifest(tmp_path / "out") is None


def test_items_keep_their_index_new_ones_are_appended_and_gone_ones_are_tombstones(
    tmp_path: Path, tiny_backbone: str
) -> None:
    days = {"0": [("u", "b", 1), ("u", "c", 2), ("u", "d", 3), ("v", "b", 1), ("v", "d", 2)]}
    data = _shop(tmp_path / "one", days, {name: ITEMS[name] for name in "bcd"})
    first = prepare(CONFIG, tiny_backbone, data, str(tmp_path / "first"))
    _shop(tmp_path / "one", {}, {"a": "red hammer", "b": "blue shirt", "d": "green saw", "A": "x1"})
    second = prepare(CONFIG, tiny_backbone, data, str(tmp_path / "second"), Before(first))
    items = second.read_table("items.parquet")
    assert items["item_id"].to_pylist() == ["b", "c", "d", "A", "a"]
    assert items["title"].to_pylist() == ["blue shirt", "锤子", "green saw", "x1", "red hammer"]
    assert items["removed"].to_pylist() == [False, True, False, False, False]
    assert items["item_index"].to_pylist() == [0, 1, 2, 3, 4]
    for part in ("train", "test"):
        assert _rows(second, part).equals(_rows(first, part))
    _shop(tmp_path / "one", {}, {name: ITEMS[name] for name in "bc"})
    third = prepare(CONFIG, tiny_backbone, data, str(tmp_path / "third"), Before(second))
    removed = third.read_table("items.parquet")["removed"].to_pylist()
    assert removed == [False, False, True, True, True]


def test_the_k_core_is_what_a_loop_finds(tmp_path: Path, tiny_backbone: str) -> None:
    random = np.random.default_rng(3)
    names = [f"i{n}" for n in range(12)]
    rows = [
        (f"u{random.integers(15)}", names[int(12 * random.random() ** 2)], n) for n in range(140)
    ]
    data = _shop(tmp_path / "data", {"0": rows}, dict.fromkeys(names, "red hat"))
    config = CONFIG.model_copy(update={"min_user_events": 6, "min_item_events": 8})
    dataset = prepare(config, tiny_backbone, data, str(tmp_path / "out"))

    left = list(rows)
    while True:
        users, items = Counter(u for u, _, _ in left), Counter(i for _, i, _ in left)
        kept = [r for r in left if users[r[0]] >= 6 and items[r[1]] >= 8]
        if len(kept) == len(left):
            break
        left = kept
    counts = dataset.read_json("quality.json")["tables"]["interactions"]
    assert 0 < len(left) < 140
    assert counts["kept"] == len(left)
    assert counts["dropped"] == {"duplicates": 0, "k_core": 140 - len(left)}
    assert dataset.manifest.facts["num_users"] == len({user for user, _, _ in left})
    tests = _rows(dataset, "test")
    last = {u: i for u, i, _ in left}
    ids = dataset.read_table("items.parquet")["item_id"].to_pylist()
    found = {r["user_id"]: ids[r["targets"][0]] for r in tests.to_pylist()}
    assert found == {user: last[user] for user in found}


def test_robots_go_to_quarantine_with_all_their_rows(tmp_path: Path, tiny_backbone: str) -> None:
    robot = [("robot", "abcd"[n % 4], DAY + n) for n in range(9)] + [("robot", "a", 5)]
    people = [
        (user, item, n) for n, (user, item) in enumerate(zip("uvuvuv", "abcdab", strict=True))
    ]
    data = _shop(tmp_path / "data", {"0": [*robot, robot[0], *people]}, ITEMS)
    config = CONFIG.model_copy(update={"max_events_per_day": 8, "max_quarantine_share": 0.9})
    dataset = prepare(config, tiny_backbone, data, str(tmp_path / "out"))
    bad = _rows(dataset, "quarantine/interactions").to_pylist()
    assert {(r["rule"], r["rule_value"]) for r in bad} == {("too_many_events_a_day", "9")}
    assert Counter((r["user_id"], r["item_id"], r["timestamp"]) for r in bad) == Counter(
        [*robot, robot[0]]
    )
    assert dataset.manifest.facts["num_users"] == 2


def test_a_ratio_split_cuts_all_users_at_the_same_times(tmp_path: Path, tiny_backbone: str) -> None:
    rows = [(f"u{n % 3}", "abcd"[n % 4], n * DAY // 3 + n) for n in range(40)]
    data = _shop(tmp_path / "data", {"0": rows}, ITEMS)
    split = SplitConfig(strategy="ratio", ratio=(0.7, 0.2, 0.1))
    dataset = prepare(
        CONFIG.model_copy(update={"split": split}), tiny_backbone, data, str(tmp_path / "out")
    )
    cuts = dataset.manifest.facts["split"]
    times = sorted(time for _, _, time in rows)
    assert (cuts["valid_from"], cuts["test_from"]) == (times[28], times[36])
    assert dataset.manifest.facts["rows"]["valid"] == 8
    assert dataset.manifest.facts["rows"]["test"] == 4
    trained = [t for row in _rows(dataset, "train")["timestamps"].to_pylist() for t in row]
    assert max(trained) == times[27]
    # Items are counted in training events alone: nothing of the test set is in them.
    counts = dataset.read_table("items.parquet")["train_count"].to_pylist()
    early = Counter(item for _, item, time in rows if time < times[28])
    assert counts == [early[name] for name in "abcd"]


def test_sessions_are_sequences_of_their_own(tmp_path: Path, tiny_backbone: str) -> None:
    rows = [
        ("u", item, time)
        for time, item in zip((0, 60, 120, 9999, 10_050, 10_100), "abcdab", strict=True)
    ]
    data = _shop(tmp_path / "data", {"0": rows}, ITEMS)
    config = CONFIG.model_copy(update={"session_gap_minutes": 30.0})
    dataset = prepare(config, tiny_backbone, data, str(tmp_path / "out"))
    assert sorted(_rows(dataset, "test")["item_indexes"].to_pylist()) == [[0, 1], [3, 0]]
    assert dataset.manifest.facts["num_users"] == 1


def test_a_rule_over_its_own_share_stops_the_job_with_examples(
    tmp_path: Path, tiny_backbone: str
) -> None:
    rows = [("u", item, n) for n, item in enumerate("abcdabcdaz")]
    data = _shop(tmp_path / "data", {"0": rows}, ITEMS)
    config = CONFIG.model_copy(update={"max_rule_shares": {"unknown_item": 0.05}})
    with pytest.raises(ValueError, match=r"unknown_item: 1 rows .*'item_id': 'z'"):
        prepare(config, tiny_backbone, data, str(tmp_path / "out"))
    assert find_manifest(tmp_path / "out") is None


def test_with_a_key_no_file_of_the_dataset_holds_a_user_id(
    tmp_path: Path, tiny_backbone: str
) -> None:
    rows = [("alice@example.com", item, n) for n, item in enumerate("abcdz")]
    rows += [("王小明", item, n) for n, item in enumerate("dcba")]
    data = _shop(tmp_path / "data", {"0": rows}, ITEMS)
    key = b"sixteen bytes at least"
    dataset = prepare(CONFIG, tiny_backbone, data, str(tmp_path / "out"), user_key=key)
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        text = repr(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else ""
        for secret in ("alice", "王小明", key.decode()):
            assert secret.encode() not in content
            assert secret not in text
    plain = prepare(CONFIG, tiny_backbone, data, str(tmp_path / "plain"))
    histories = [
        sorted(map(tuple, _rows(d, "test")["item_indexes"].to_pylist())) for d in (dataset, plain)
    ]
    assert histories[0] == histories[1]

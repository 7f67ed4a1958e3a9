"""Forgetting users: what is left is what would be there if they had never come."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from ray_jobs.forget import Arguments, forget
from recsys.artifact import MANIFEST, Artifact, ArtifactWriter, find_manifest, open_artifact
from recsys.config import PrepareConfig, SplitConfig, StoreConfig
from recsys.data.forget import (
    ANY_AGE,
    Receipt,
    forget_elsewhere,
    forget_users,
    known_names,
    made_from,
    open_to_forget,
)
from recsys.data.prepare import Before, prepare
from recsys.data.privacy import pseudonymise
from recsys.data.user_rows import count_rows
from recsys.store.histories import StoredEvent, StoreUnavailable
from recsys.store.open import open_store
from tests.conftest import write_shop
from tests.data.test_user_rows import events_of, put

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

KEY = bytes(range(32))
NOW = "2026-03-01T12:00:00+00:00"
DAY = 86_400
GONE = ["用户-1", "bob-bob", "once-only"]
ITEMS = {"item_id": list("abcdef"), "title": ["red", "blue nail", "锤子", "saw", "hat", "shoe"]}
CONFIG = PrepareConfig(
    max_history=3,
    max_item_tokens=8,
    num_partitions=3,
    max_quarantine_share=0.9,
    session_gap_minutes=36.0 * 60,
)


def _rows() -> list[tuple[str | None, str, int]]:
    """Long and short histories, repeated rows, bad rows: of users who go and of users who stay.

    After every five events a user pauses for three days more, which ends a session.
    """
    lengths = {"用户-1": 9, "bob-bob": 4, "once-only": 1} | {f"u{n}": 1 + n % 9 for n in range(20)}
    rows: list[tuple[str | None, str, int]] = []
    for start, (user, length) in enumerate(lengths.items()):
        times = [start * 1000 + (n + n // 5 * 3) * DAY for n in range(length)]
        rows += [(user, "abcdef"[(start + n) % 6], time) for n, time in enumerate(times)]
    doubled = [row for row in rows if row[0] in ("用户-1", "u5")][:4] + rows[-2:]
    bad = [(user, "unheard", 7) for user in ("用户-1", "u3", "only-bad")]
    return [*rows, *doubled, *bad, ("用户-1", "a", -5), (None, "a", 3)]


def _shop(folder: Path, rows: list[tuple]) -> str:
    users, items, times = zip(*rows, strict=True)
    columns = {"user_id": pa.array(users, pa.string()), "item_id": items, "timestamp": times}
    return write_shop(folder, columns, ITEMS)


def _without(rows: list[tuple]) -> list[tuple]:
    return [row for row in rows if row[0] not in GONE]


def _add_file(data: Path, rows: list[tuple]) -> None:
    _shop(data, rows)
    (data / "interactions").mkdir(exist_ok=True)
    number = len(list((data / "interactions").iterdir()))
    (data / "interactions.parquet").rename(data / "interactions" / f"{number}.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw tables of the whole shop."""
    folder = tmp_path_factory.mktemp("forget") / "data"
    _add_file(folder, _rows())
    return folder


@pytest.fixture(scope="module")
def dataset(data: Path, tiny_backbone: str) -> Artifact:
    """The dataset of the whole shop."""
    return prepare(CONFIG, tiny_backbone, str(data), str(data.parent / "dataset"))


@pytest.fixture(scope="module")
def forgotten(
    tmp_path_factory: pytest.TempPathFactory, dataset: Artifact
) -> tuple[Artifact, Receipt]:
    """The dataset without three of its users."""
    return forget_users(dataset, GONE, str(tmp_path_factory.mktemp("new") / "d"), None, NOW)


def _all_users(artifact: Artifact) -> Counter[str]:
    """Rows by user over all files that name users."""
    names = [name for name in artifact.names() if name.endswith(".parquet")]
    tables = [artifact.read_table(name) for name in names]
    columns = [t["user_id"].to_pylist() for t in tables if "user_id" in t.column_names]
    return Counter(user for column in columns for user in column if user is not None)


def _read(artifact: Artifact, folder: str) -> list[dict]:
    rows = [r for name in artifact.names(folder) for r in artifact.read_table(name).to_pylist()]
    return sorted(({**row, "source_file": None} for row in rows), key=repr)


def _assert_same(made: Artifact, wanted: Artifact) -> None:
    for folder in ("train/", "valid/", "test/", "events/", "quarantine/"):
        assert _read(made, folder) == _read(wanted, folder)
    assert made.read_table("items.parquet").equals(wanted.read_table("items.parquet"))
    assert made.manifest.facts == wanted.manifest.facts
    assert made.digest == wanted.digest
    assert made.read_json("inputs.json")["num_rows"] == wanted.read_json("inputs.json")["num_rows"]
    open_artifact(made.uri, "dataset")


def test_forgetting_is_preparing_without(tmp_path: Path, tiny_backbone: str, forgotten) -> None:
    some = _shop(tmp_path / "data", _without(_rows()))
    _assert_same(forgotten[0], prepare(CONFIG, tiny_backbone, some, str(tmp_path / "some")))
    assert forgotten[1].old_digest != forgotten[1].new_digest


def test_it_is_so_with_pseudonyms_a_time_split_and_a_core(
    tmp_path: Path, tiny_backbone: str
) -> None:
    changes = {
        "split": SplitConfig(strategy="time", test_days=2, valid_days=2),
        "long_histories": "newest",
        "min_user_events": 2,
        "min_item_events": 3,
    }
    config = CONFIG.model_copy(update=changes)
    for name, rows in {"all": _rows(), "some": _without(_rows())}.items():
        data = _shop(tmp_path / "data" / name, rows)
        prepare(config, tiny_backbone, data, str(tmp_path / name), user_key=KEY)
    before, wanted = (open_artifact(tmp_path / name, "dataset") for name in ("all", "some"))
    made, receipt = forget_users(before, GONE, str(tmp_path / "made"), KEY, NOW)
    _assert_same(made, wanted)
    # One event is not in the core, so there is one user less to take away.
    assert before.manifest.facts["num_users"] - made.manifest.facts["num_users"] == 2
    assert receipt.users == sorted(pseudonymise(pa.array(GONE), KEY).to_pylist())
    assert made.manifest.parents == before.manifest.parents


def test_an_incremental_run_goes_on_from_what_is_left(
    tmp_path: Path, tiny_backbone: str, data: Path, forgotten
) -> None:
    # bob-bob comes back, which begins a new history.
    new = [("u3", "e", 40 * DAY), ("bob-bob", "a", 41 * DAY), ("u30", "b", 42 * DAY)]
    _add_file(data, new)
    before = Before(forgotten[0], incremental=True)
    grown = prepare(CONFIG, tiny_backbone, str(data), str(tmp_path / "grown"), before)
    full = _shop(tmp_path / "full", [*_without(_rows()), *new])
    _assert_same(grown, prepare(CONFIG, tiny_backbone, full, str(tmp_path / "wanted")))


def test_no_file_names_the_users_any_more(
    dataset: Artifact, forgotten: tuple[Artifact, Receipt]
) -> None:
    made, _ = forgotten
    before, left = _all_users(dataset), _all_users(made)
    assert {user for user in before if user in GONE} == set(GONE)
    assert left == Counter({user: n for user, n in before.items() if user not in GONE})
    texts = [made.read_bytes(name).decode() for name in ("quality.json", "quality.html")]
    texts.append((Path(made.uri) / MANIFEST).read_text())
    assert not any(user in text for user in GONE for text in texts)


def test_examples_go_with_the_users_bad_rows(dataset, forgotten, tmp_path: Path) -> None:
    def examples(artifact: Artifact) -> dict:
        return artifact.read_json("quality.json")["tables"]["interactions"]["examples"]

    assert {"unknown_item", "negative_timestamp"} <= examples(dataset).keys()
    assert examples(forgotten[0]) == {}
    assert b"Examples of" in dataset.read_bytes("quality.html")
    assert b"Examples of" not in forgotten[0].read_bytes("quality.html")
    without_bad_rows, _ = forget_users(dataset, ["bob-bob"], str(tmp_path / "d"), None, NOW)
    for name in ("quality.json", "quality.html"):
        assert without_bad_rows.read_bytes(name) == dataset.read_bytes(name)


def test_the_receipt_counts_each_files_rows_and_names_nobody(
    dataset: Artifact, forgotten: tuple[Artifact, Receipt]
) -> None:
    made, receipt = forgotten
    assert (receipt.requested_at, receipt.users_found, receipt.remaining_rows) == (NOW, 3, 0)
    assert (receipt.old_digest, receipt.new_digest) == (dataset.digest, made.digest)
    by_folder: Counter[str] = Counter()
    for removal in receipt.removed:
        by_folder[removal.path.split("/")[0]] += removal.rows
    # Sessions of 5 + 4, 4 and 1 events: where there are three or more, the last is test and the
    # one before valid. What is left is 3 + 2, 2 and 1 to train on; one alone makes no window.
    assert by_folder == {"events": 14, "train": 3, "valid": 3, "test": 3, "quarantine": 2}
    assert receipt.train_events_removed == 3 + 2 + 2 + 1
    assert receipt.users == sorted(hashlib.sha256(user.encode()).hexdigest() for user in GONE)
    told = receipt.model_dump_json()
    assert not any(user in told for user in GONE)
    for removal in receipt.removed:
        users = dataset.read_table(removal.path, ["user_id"])["user_id"].to_pylist()
        assert removal.rows == sum(user in GONE for user in users)


def test_a_file_without_the_users_is_copied_byte_for_byte(
    dataset: Artifact, tmp_path: Path
) -> None:
    made, receipt = forget_users(dataset, ["bob-bob"], str(tmp_path / "d"), None, NOW)
    touched = {removal.path for removal in receipt.removed}
    reports = {"items.parquet", "inputs.json"}
    before = {entry.path: entry for entry in dataset.manifest.files}
    after = {entry.path: entry for entry in made.manifest.files}
    untouched = before.keys() - touched - reports
    assert len(untouched) > 5
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


def test_the_old_dataset_stays_as_it_was(dataset: Artifact, forgotten) -> None:
    open_artifact(dataset.uri, "dataset")
    assert count_rows(dataset, GONE) > forgotten[1].remaining_rows == 0


def test_one_after_the_other_is_all_at_once(dataset, forgotten, tmp_path: Path) -> None:
    made = dataset
    for number, user in enumerate(GONE):
        made, _ = forget_users(made, [user], str(tmp_path / str(number)), None, NOW)
    assert made.digest == forgotten[0].digest


def test_a_user_who_is_not_there_changes_nothing(dataset: Artifact, tmp_path: Path) -> None:
    made, receipt = forget_users(dataset, ["nobody", "bob"], str(tmp_path / "d"), None, NOW)
    assert (receipt.users_found, receipt.removed, receipt.still_hold) == (0, [], [])
    assert made.manifest.files == dataset.manifest.files


def test_everybody_can_be_forgotten(dataset: Artifact, tmp_path: Path) -> None:
    everybody = list(_all_users(dataset))
    made, receipt = forget_users(dataset, everybody, str(tmp_path / "d"), None, NOW)
    facts = made.manifest.facts
    assert (facts["num_users"], facts["rows"]) == (0, {"train": 0, "valid": 0, "test": 0})
    assert set(made.read_table("items.parquet")["train_count"].to_pylist()) == {0}
    assert receipt.users_found == len(everybody)
    assert not made.names("events/")


@pytest.mark.parametrize("place", ["", "/inside", "/.."])
def test_the_dataset_itself_is_no_output(dataset: Artifact, place: str) -> None:
    with pytest.raises(ValueError, match="overlaps the dataset .*: choose another output"):
        forget_users(dataset, GONE, dataset.uri + place, None, NOW)
    open_artifact(dataset.uri, "dataset")


@pytest.mark.parametrize("users", [[], ["u1", ""]])
def test_a_list_without_users_is_refused(dataset: Artifact, tmp_path: Path, users) -> None:
    with pytest.raises(ValueError, match="empty or has an empty id"):
        forget_users(dataset, users, str(tmp_path / "d"), None, NOW)
    assert not (tmp_path / "d").exists()


def test_a_dataset_that_did_not_keep_its_events_is_refused(tmp_path: Path) -> None:
    old = ArtifactWriter(tmp_path / "old", "dataset").publish({}, {})
    with pytest.raises(ValueError, match=r"no inputs.json: an older release.*without these users"):
        forget_users(old, GONE, str(tmp_path / "d"), None, NOW)


def test_with_a_key_a_file_may_hold_the_id_or_the_pseudonym() -> None:
    pseudonym = pseudonymise(pa.array(["b"]), KEY)[0].as_py()
    assert known_names(["b", "b"], KEY) == ["b", pseudonym]
    assert known_names(["b", "a"], None) == ["a", "b"]


def test_what_was_made_from_a_dataset_is_found_through_others(tmp_path: Path) -> None:
    def make(name: str, kind: str, **parents: str) -> Artifact:
        config = {"name": name}
        return ArtifactWriter(tmp_path / name, kind).publish(config, parents)

    dataset = make("dataset", "dataset")
    checkpoint = make("checkpoint", "checkpoint", dataset=dataset.digest)
    make("index", "index", checkpoint=checkpoint.digest)
    grown = make("grown", "dataset", previous=dataset.digest)
    make("refreshed", "checkpoint", dataset=grown.digest)
    make("other", "checkpoint", dataset="0" * 64)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / MANIFEST).write_text("{")
    found = {Path(uri).name for uri in made_from(dataset)}
    assert found == {"checkpoint", "index", "grown", "refreshed", "damaged"}


def _arguments(tmp_path: Path, dataset: Artifact, **more) -> Arguments:
    shutil.copytree(dataset.uri, tmp_path / "dataset")
    users = tmp_path / "users.txt"
    users.write_bytes("\ufeff用户-1\r\nbob-bob\n\nonce-only".encode())
    places = {"dataset": tmp_path / "dataset", "output": tmp_path / "new"}
    return Arguments(**{n: str(p) for n, p in places.items()}, users_file=users, **more)


def test_the_job_prints_receipt_and_dataset_and_nobodys_id(tmp_path, dataset, forgotten) -> None:
    arguments = _arguments(tmp_path, dataset)
    places = [f"--dataset={arguments.dataset}", f"--output={arguments.output}"]
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.forget", *places, f"--users-file={arguments.users_file}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{arguments.output}-receipt.json", arguments.output]
    assert not any(user in done.stdout + done.stderr for user in GONE)
    receipt = Receipt.model_validate_json((tmp_path / "new-receipt.json").read_text())
    assert receipt.users_found == 3
    assert open_artifact(arguments.output, "dataset").digest == forgotten[0].digest
    assert find_manifest(arguments.dataset) is not None


def test_the_job_deletes_elsewhere_and_the_old_dataset_where_told_to(tmp_path, dataset) -> None:
    put(tmp_path / "feedback", "date=2026-01-01/0.parquet", events_of(["bob-bob", "anna"]))
    place = str(tmp_path / "feedback")
    url = f"sqlite:///{tmp_path}/histories.sqlite"
    store = open_store(StoreConfig(url=url, ttl_days=ANY_AGE))
    for user in ("用户-1", "anna"):
        store.append(user, [StoredEvent("1", "a", 7), StoredEvent("2", "a", 9)])
    ArtifactWriter(tmp_path / "model", "checkpoint").publish({}, {"dataset": dataset.digest})
    made = forget(_arguments(tmp_path, dataset, feedback=place, store=url, delete_old=True))
    assert not (tmp_path / "dataset").exists()
    assert made.digest == open_artifact(tmp_path / "new", "dataset").digest
    receipt = json.loads((tmp_path / "new-receipt.json").read_text())
    assert receipt["still_hold"] == [str(tmp_path / "model")]
    assert receipt["feedback"] == [{"path": "date=2026-01-01/0.parquet", "rows": 1}]
    assert receipt["store_events"] == 2
    assert [len(store.last(user, 9)) for user in ("用户-1", "anna")] == [0, 2]
    store.close()


def test_a_store_that_does_not_answer_ends_the_job_before_anything_is_written(
    tmp_path, dataset
) -> None:
    arguments = _arguments(tmp_path, dataset, store=f"sqlite:///{tmp_path}/nowhere/s")
    with pytest.raises(StoreUnavailable, match="nowhere/s failed"):
        forget(arguments)
    assert not (tmp_path / "new").exists()


def test_with_a_key_the_store_may_have_the_id_or_the_pseudonym(forgotten) -> None:
    store = open_to_forget("sqlite://", None)
    pseudonym = pseudonymise(pa.array(["bob-bob"]), KEY)[0].as_py()
    for user in ("bob-bob", pseudonym, "anna"):
        store.append(user, [StoredEvent("1", "a", 7)])
    receipt = forget_elsewhere(forgotten[1], ["bob-bob"], KEY, "", store)
    assert (receipt.store_events, receipt.feedback) == (2, [])
    assert len(store.last("anna", 9)) == 1
    store.close()


def test_a_wrong_key_ends_the_job_before_anything_is_written(
    tmp_path, dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_USER_KEY", KEY.hex())
    with pytest.raises(ValueError, match="made without a user key") as caught:
        forget(_arguments(tmp_path, dataset, delete_old=True))
    assert KEY.hex() not in str(caught.value)
    assert not (tmp_path / "new").exists()
    open_artifact(tmp_path / "dataset", "dataset")


def test_a_key_file_goes_before_the_environment(tmp_path, dataset, monkeypatch) -> None:
    monkeypatch.setenv("RECSYS_USER_KEY", "short")
    (tmp_path / "key").write_text("also short")
    with pytest.raises(ValueError, match="has 10 bytes"):
        forget(_arguments(tmp_path, dataset, user_key_file=tmp_path / "key"))

"""Columns of users: who is kept, what becomes of bad rows, and that users can be forgotten."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import PrepareConfig
from recsys.data.forget import forget_users
from recsys.data.prepare import input_fingerprints, prepare
from recsys.data.privacy import pseudonymise
from recsys.data.users import USERS, write_users
from tests.conftest import write_shop

KEY = b"k" * 16
COLUMNS = ("country", "age")


def write_table(folder: Path, users: list, **columns: list) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"user_id": users} | columns), folder / USERS)
    return str(folder)


def writer_of(place: Path, **files: list[str]) -> ArtifactWriter:
    """A dataset at work that has rows of these users in these folders."""
    writer = ArtifactWriter(str(place), "dataset")
    for folder, users in files.items():
        column = pa.array(users, pa.large_string())
        writer.add_table(f"{folder}/0.parquet", pa.table({"user_id": column}))
    return writer


def written(writer: ArtifactWriter) -> list[dict]:
    return writer.publish({}, {}).read_table(USERS).to_pylist()


def test_users_with_rows_are_kept_as_text_in_the_order_of_their_ids(tmp_path: Path) -> None:
    data = write_table(
        tmp_path / "raw",
        [30, 10, 20, 40],
        country=["日本", None, "US", "FR"],
        age=[7, 8, None, 9],
        name=["not", "asked", "for", "this"],
    )
    writer = writer_of(tmp_path / "d", events=["10", "30"], test=["20"])
    counts = write_users(data, COLUMNS, None, writer)["users"]
    assert (counts["read"], counts["kept"], counts["dropped"]) == (4, 3, {"no_interactions": 1})
    assert written(writer) == [
        {"user_id": "10", "country": None, "age": "8"},
        {"user_id": "20", "country": "US", "age": None},
        {"user_id": "30", "country": "日本", "age": "7"},
    ]


def test_rows_that_name_nobody_go_to_quarantine(tmp_path: Path) -> None:
    data = write_table(tmp_path / "raw", ["a", None, ""], country=["x", "y", "z"])
    writer = writer_of(tmp_path / "d", events=["a"])
    counts = write_users(data, ("country",), KEY, writer)["users"]
    # The one user whom the data names has no rows under the pseudonym.
    assert (counts["read"], counts["kept"], counts["quarantined"]) == (3, 0, 2)
    assert counts["reasons"] == {"null_user_id": 2}
    dataset = writer.publish({}, {})
    assert USERS not in dataset.names()
    bad = dataset.read_table(f"quarantine/{USERS}").to_pylist()
    assert [(row["country"], row["rule"]) for row in bad] == [("y", "null_user_id")] + [
        ("z", "null_user_id")
    ]


def test_with_a_key_users_have_their_pseudonyms(tmp_path: Path) -> None:
    names = pseudonymise(pa.array(["a", "b"]), KEY).to_pylist()
    data = write_table(tmp_path / "raw", ["a", "b"], country=["x", "y"])
    writer = writer_of(tmp_path / "d", train=names)
    write_users(data, ("country",), KEY, writer)
    assert {row["user_id"]: row["country"] for row in written(writer)} == dict(
        zip(names, "xy", strict=True)
    )


@pytest.mark.parametrize(
    ("users", "columns", "asked", "message"),
    [
        (["a", "b", "a"], {"country": list("xyz")}, ("country",), "1 users more than once, .* 'a'"),
        (["a"], {"country": ["x"]}, ("age",), "column 'age' is missing"),
        (["a"], {"tags": [["x"]]}, ("tags",), "'tags' is list.*must be text, a number or a date"),
        (["a"], {"country": ["x"]}, ("user_id",), "name what groups users"),
    ],
)
def test_refuses(tmp_path: Path, users: list, columns: dict, asked: tuple, message: str) -> None:
    data = write_table(tmp_path / "raw", users, **columns)
    with pytest.raises(ValueError, match=message):
        write_users(data, asked, None, writer_of(tmp_path / "d", events=["a"]))


def test_a_doubled_user_is_told_by_the_pseudonym_alone(tmp_path: Path) -> None:
    data = write_table(tmp_path / "raw", ["ann@x.org"] * 2, country=["x", "y"])
    with pytest.raises(ValueError, match="more than once") as raised:
        write_users(data, ("country",), KEY, writer_of(tmp_path / "d", events=["a"]))
    assert "ann@x.org" not in str(raised.value)


def test_nothing_is_read_where_no_column_is_asked_for(tmp_path: Path) -> None:
    assert write_users(str(tmp_path), (), None, writer_of(tmp_path / "d")) == {}
    with pytest.raises(ValueError, match=r"neither 'users.parquet' nor"):
        write_users(str(tmp_path), ("country",), None, writer_of(tmp_path / "e"))


def test_another_table_of_users_is_another_input(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "raw", {"user_id": ["a"]}, {"item_id": ["i"]})
    assert "users" not in input_fingerprints(data)
    write_table(tmp_path / "raw", ["a"], country=["x"])
    first = input_fingerprints(data)
    write_table(tmp_path / "raw", ["a", "b"], country=["x", "y"])
    assert first["users"] != input_fingerprints(data)["users"]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
class TestInADataset:
    ROWS = [(user, item, time) for user in "abc" for time, item in enumerate("ijkl")]
    CONFIG = PrepareConfig(max_item_tokens=8, num_partitions=2, user_columns=("country",))

    def prepared(self, folder: Path, backbone: str, users: str) -> Artifact:
        rows = [row for row in self.ROWS if row[0] in users]
        names, items, times = zip(*rows, strict=True)
        shop = {"item_id": list("ijkl"), "title": ["red", "hat", "saw", "nail"]}
        data = write_shop(
            folder / "raw", {"user_id": names, "item_id": items, "timestamp": times}, shop
        )
        write_table(
            folder / "raw", [*users, "stranger"], country=["日本", "US", "FR"][: len(users)] + ["x"]
        )
        return prepare(self.CONFIG, backbone, data, str(folder / "dataset"))

    def test_forgotten_users_are_gone_from_it(self, tmp_path: Path, tiny_backbone: str) -> None:
        whole = self.prepared(tmp_path / "whole", tiny_backbone, "abc")
        assert len(whole.read_table(USERS)) == 3
        made, receipt = forget_users(whole, ["c"], str(tmp_path / "new"), None, "2026-01-01")
        assert made.read_table(USERS)["user_id"].to_pylist() == ["a", "b"]
        assert {r.path: r.rows for r in receipt.removed}[USERS] == 1
        # As if the user had never come.
        assert made.digest == self.prepared(tmp_path / "never", tiny_backbone, "ab").digest

    def test_the_quality_report_counts_them(self, tmp_path: Path, tiny_backbone: str) -> None:
        dataset = self.prepared(tmp_path, tiny_backbone, "abc")
        counts = dataset.read_json("quality.json")["tables"]["users"]
        assert (counts["read"], counts["kept"]) == (4, 3)
        assert counts["dropped"] == {"no_interactions": 1}

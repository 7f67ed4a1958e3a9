"""Prepare from and to an S3 that fails: the same dataset, or a clear refusal, and no other end."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from recsys.artifact import Artifact, find_manifest, open_artifact, parquet_bytes, write_file
from recsys.config import PrepareConfig, WorldConfig
from recsys.data.prepare import prepare
from recsys.data.synthetic import generate
from tests.conftest import S3_PORT
from tests.faults import INTERNAL_ERROR, SLOW_DOWN, Fault, FaultProxy, faulty_s3, share

pytestmark = [
    pytest.mark.ray,
    # moto's own server uses names that werkzeug and botocore are about to drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
BUCKET = "storm"
CONFIG = PrepareConfig(max_history=8, max_item_tokens=16, num_partitions=2)
TITLES = ["nul \x00 inside", "\U0001f6cd\ufe0f bag", "\u05e9\u05dc\u05d5\u05dd \u202eabc", "热水壶"]
WORLD = generate(WorldConfig(num_users=60, num_items=30, num_queries=0))


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultProxy]:
    """The proxy stands where workers' AWS_ENDPOINT_URL points to."""
    with faulty_s3(BUCKET, port=S3_PORT) as proxy:
        yield proxy


def put_world(data: str) -> pa.Table:
    """Upload both tables in two files each; returns the items."""
    titles = pa.array([*TITLES, *WORLD.items["title"].to_pylist()[len(TITLES) :]])
    position = WORLD.items.column_names.index("title")
    items = WORLD.items.set_column(position, "title", titles)
    for name, table in {"interactions": WORLD.interactions, "items": items}.items():
        half = len(table) // 2
        for part, rows in enumerate((table.slice(0, half), table.slice(half))):
            write_file(data, f"{name}/{part}.parquet", parquet_bytes(rows))
    return items


def prepare_in(run: str, data: str, backbone: str) -> Artifact:
    return prepare(CONFIG, backbone, data, f"s3://{BUCKET}/{run}")


def test_a_storm_changes_nothing_in_the_dataset(s3: FaultProxy, local_ray, tiny_backbone) -> None:
    data = f"s3://{BUCKET}/data"
    s3.begin(None)
    items = put_world(data)
    calm = prepare_in("calm", data, tiny_backbone)
    s3.begin(share([SLOW_DOWN, INTERNAL_ERROR, Fault(keep_bytes=100)], 0.2, seed=1))
    try:
        stormy = prepare_in("stormy", data, tiny_backbone)
        assert s3.broken > 0.1 * sum(s3.seen.values())
    finally:
        s3.begin(None)
    assert stormy.digest == calm.digest
    read = open_artifact(f"s3://{BUCKET}/stormy", "dataset").read_table("items.parquet")
    assert sorted(read["item_id"].to_pylist()) == sorted(items["item_id"].to_pylist())
    letters = {"".join(filter(str.isalpha, title)) for title in read["title"].to_pylist()}
    assert {"nulinside", "bag", "\u05e9\u05dc\u05d5\u05ddabc", "热水壶"} <= letters


def whole_file() -> bytes:
    return parquet_bytes(WORLD.interactions.slice(0, 50))


BAD_FILES = {
    "truncated": lambda: whole_file()[:-20],
    "wrong magic": lambda: whole_file()[:-4] + b"PAR2",
    "empty": lambda: b"",
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_file_on_s3_is_refused_by_name(s3, local_ray, tiny_backbone, fault) -> None:
    s3.begin(None)
    data = f"s3://{BUCKET}/{fault.replace(' ', '-')}"
    put_world(data)
    write_file(data, "interactions/bad.parquet", BAD_FILES[fault]())
    with pytest.raises(ValueError, match=r"interactions/bad\.parquet"):
        prepare_in("refused", data, tiny_backbone)
    assert find_manifest(f"s3://{BUCKET}/refused") is None


def test_a_table_without_rows_is_refused_by_name(s3, local_ray, tiny_backbone) -> None:
    s3.begin(None)
    data = f"s3://{BUCKET}/no-rows"
    put_world(data)
    for part in (0, 1):
        empty = WORLD.interactions.slice(0, 0)
        write_file(data, f"interactions/{part}.parquet", parquet_bytes(empty))
    with pytest.raises(ValueError, match="no-rows.*interactions.*no rows"):
        prepare_in("refused", data, tiny_backbone)
    assert find_manifest(f"s3://{BUCKET}/refused") is None

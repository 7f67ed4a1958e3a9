"""What the index stage writes beside vectors. Encoding needs Ray and has tests of its own."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import IndexConfig, SearchConfig
from recsys.index import build
from recsys.index.segment_popularity import SEGMENTS, Segments
from tests.index.test_segment_popularity import BY_HAND, COUNTRIES, users

ITEMS = pa.table(
    {
        "item_id": list("abcdef"),
        "title": ["Saw"] * 6,
        "description": ["long"] * 6,
        "colour": ["red", "blue"] * 3,
        "removed": [False] * 4 + [True, False],
        "token_ids": [[1]] * 6,
        "train_count": [1, 2, 3, 1, 3, 0],
    }
)


@pytest.fixture(params=[True, False])
def with_users(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def index(tmp_path: Path, with_users: bool, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setattr(build, "embed_items", lambda *_: (torch.eye(6), None))
    writer = ArtifactWriter(tmp_path / "dataset", "dataset")
    writer.add_table("items.parquet", ITEMS)
    for number, table in enumerate(BY_HAND):
        writer.add_table(f"train/{number}.parquet", table)
    if with_users:
        writer.add_table("users.parquet", users(country=COUNTRIES))
    dataset = writer.publish({}, {})
    checkpoint = ArtifactWriter(tmp_path / "checkpoint", "checkpoint").publish({}, {})
    config, search = IndexConfig(transitions=0, min_segment_users=2), SearchConfig(enabled=False)
    return build.build_index(config, dataset, checkpoint, str(tmp_path / "index"), search)


def test_it_has_the_items_without_what_only_the_encoder_needs(index):
    kept = ["item_id", "title", "colour", "removed", "train_count"]
    assert index.read_table("items.parquet").equals(ITEMS.select(kept))


def test_it_has_segments_where_the_dataset_has_users(index, with_users):
    assert index.names(SEGMENTS) == [SEGMENTS] * with_users
    if not with_users:
        return
    segments = Segments(index.read_table(SEGMENTS))
    assert segments.find({"country": "中国"}) is None  # one user
    found = segments.find({"country": "DE"})
    assert found is not None
    assert found.items.tolist() == [2, 1]  # 4 is removed
    assert found.shares.tolist() == pytest.approx([2 / 6, 1 / 6])

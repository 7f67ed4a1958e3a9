"""All baselines by name, from a dataset."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.eval.baselines import NAMES, SEQUENCE_NAMES, make_baselines
from recsys.eval.baselines import training_matrix as reading
from recsys.eval.baselines.training_matrix import join_windows
from tests.eval.baselines.made import GROUP, histories, make_catalogue, make_rows, planted_rows

NUM_ITEMS = 2 * GROUP
FITTED = [name for name in NAMES if name not in SEQUENCE_NAMES]
COUNTS = np.asarray(join_windows(planted_rows(), NUM_ITEMS).counts.sum(axis=0)).ravel().astype(int)
CATALOGUE = make_catalogue(COUNTS.tolist(), removed=[3])
TEXTS = ["红色连衣裙" if item < GROUP else "透气跑步鞋" for item in range(NUM_ITEMS)]
VECTORS = torch.tensor([[1.0, 0.1] if item < GROUP else [0.1, 1.0] for item in range(NUM_ITEMS)])


def write_dataset(folder: Path, rows: pa.Table) -> Artifact:
    writer = ArtifactWriter(folder / "dataset", "dataset")
    half = len(rows) // 2
    writer.add_table("train/b.parquet", rows.slice(half))
    writer.add_table("train/a.parquet", rows.slice(0, half))
    writer.add_table("items.parquet", pa.table({"text": TEXTS}))
    events = sum(len(items) for items in rows["item_indexes"].to_pylist())
    facts = {"train_targets": events - len(rows), "rows": {"train": len(rows)}}
    return writer.publish({}, {}, facts)


@pytest.fixture
def dataset(tmp_path: Path) -> Artifact:
    return write_dataset(tmp_path, planted_rows())


@pytest.mark.parametrize("filter_seen", [False, True])
def test_every_baseline_keeps_the_rules_of_ranking(dataset: Artifact, filter_seen: bool):
    found = make_baselines(NAMES, dataset, CATALOGUE, filter_seen, VECTORS)
    assert list(found) == FITTED
    asked = histories([0, 1], [], [11])
    for name, ranker in found.items():
        ranked = ranker.rank(asked, [NUM_ITEMS, 4, 3], [[2], [], []])
        lists = [r.item_indexes for r in ranked]
        hidden = {2, 3} | ({0, 1} if filter_seen else set())
        assert set(lists[0]) == set(range(NUM_ITEMS)) - hidden, name
        assert [len(lists[1]), len(lists[2])] == [4, 3], name
        assert ranked[1].source == "popular", name
        assert (11 in lists[2] and filter_seen) is False, name
        assert all(sorted(r.scores, reverse=True) == r.scores for r in ranked), name


def test_all_but_popularity_tell_the_two_groups_apart(dataset: Artifact):
    found = make_baselines(NAMES, dataset, CATALOGUE, True, VECTORS)
    for name in FITTED:
        ranked = found[name].rank(histories([0, 1], [11, 12]), [5, 5], [[], []])
        groups = [{item // GROUP for item in r.item_indexes} for r in ranked]
        assert (groups == [{0}, {1}]) is not name.startswith("popularity"), name


def test_training_rows_are_read_once(dataset: Artifact, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    content = Artifact.read_bytes
    monkeypatch.setattr(
        Artifact, "read_bytes", lambda self, name: read.append(name) or content(self, name)
    )
    make_baselines(FITTED, dataset, CATALOGUE, False, VECTORS)
    assert sorted(read) == ["items.parquet", "train/a.parquet", "train/b.parquet"]


def test_popularity_reads_nothing(dataset: Artifact, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "MAX_EVENTS", 0)
    assert list(make_baselines(["popularity"], dataset, CATALOGUE, False, None)) == ["popularity"]


def test_without_times_the_last_days_are_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    dataset = write_dataset(tmp_path, make_rows([("a", [0, 1], None), ("b", [1, 2], None)]))
    with caplog.at_level(logging.INFO, "recsys.eval.baselines"):
        assert make_baselines(["popularity_7d"], dataset, CATALOGUE, False, None) == {}
    assert "popularity_7d: left out, no training event has a time" in caplog.text


def test_an_unknown_name_lists_the_known_ones(dataset: Artifact):
    with pytest.raises(ValueError, match=r"called knn; there are popularity, .*gru4rec"):
        make_baselines(["popularity", "knn"], dataset, CATALOGUE, False, None)


def test_zero_shot_needs_vectors(dataset: Artifact):
    with pytest.raises(ValueError, match="'lm_zero_shot' needs the text vectors"):
        make_baselines(["lm_zero_shot"], dataset, CATALOGUE, False, None)


def test_too_large_a_dataset_names_the_baselines_that_hold_it(
    dataset: Artifact, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "MAX_EVENTS", 7 * 60 - 1)
    with pytest.raises(ValueError, match=r"420 training events .* the baselines als, bpr: "):
        make_baselines(["tfidf", "als", "bpr"], dataset, CATALOGUE, False, None)


def test_a_missing_package_names_the_extra(dataset: Artifact, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "recsys.eval.baselines.factors", raising=False)
    monkeypatch.setitem(sys.modules, "implicit", None)
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(
        ValueError, match=r"'als' needs the package implicit: install recsys\[eval\]"
    ):
        make_baselines(["als"], dataset, CATALOGUE, False, None)


def test_evaluation_starts_without_the_extra():
    code = "import sys; sys.modules['implicit'] = None; import recsys.eval.baselines as b; b.NAMES"
    code += "; assert not {'recsys.eval.baselines.sparse', 'sklearn.svm'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""A day of the loop: logged events become a candidate that goes on from the live model, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ray_jobs import promote, stages
from ray_jobs.command import Command
from ray_jobs.refresh_command import Arguments, run
from ray_jobs.refresh_stages import refresh
from recsys.artifact import Artifact, open_artifact
from recsys.config import GateConfig, IndexConfig, RefreshConfig, WorldConfig
from recsys.data.synthetic import DAY, START, generate
from recsys.eval.gate import CANDIDATE, LIVE
from recsys.eval.row_scores import read_row_scores
from recsys.eval.transfer import transfer_checkpoint
from recsys.index.build import build_index
from recsys.registry import Registry

WORLD = WorldConfig(num_users=300, num_items=60, num_days=20, num_queries=0, drift=0.1)
NEWS_FROM = START + 19 * DAY
CONFIG = """
[prepare]
max_history = 8
max_item_tokens = 16
num_partitions = 2
split = {{strategy = "time", valid_days = 1.0, test_days = 1.0}}
[model]
backbone = "{backbone}"
embedding_size = 16
projection_size = 16
num_layers = 1
[training]
precision = "fp32"
num_workers = 1
global_batch_size = 64
[index]
transitions = 0
[search]
enabled = false
"""
REFRESH = RefreshConfig(epochs=1, gate=GateConfig(min_rows=20, max_loss=0.5, max_segment_loss=0.9))


def write_days(folder: Path) -> None:
    """Raw tables without the newest day, which is in a feedback log."""
    world = generate(WORLD)
    new = pc.greater_equal(world.interactions["timestamp"], NEWS_FROM)
    logged = world.interactions.filter(new).drop_columns(["order"])
    logged = logged.append_column("event_id", pa.nulls(len(logged), pa.string()))
    tables = {
        "data/items/1.parquet": world.items,
        "data/interactions/1.parquet": world.interactions.filter(pc.invert(new)),
        "log/interactions/date=2025-01-20/part-1.parquet": logged,
    }
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True)
        pq.write_table(table, folder / name)


@pytest.fixture
def day(tmp_path: Path, tiny_backbone: str) -> Arguments:
    """A day whose data is written; nothing is live yet."""
    write_days(tmp_path)
    (tmp_path / "loop.toml").write_text(CONFIG.format(backbone=tiny_backbone))
    return Arguments(
        config=tmp_path / "loop.toml",
        data=str(tmp_path / "data"),
        previous=str(tmp_path / "first" / "dataset"),
        output=str(tmp_path / "second"),
        registry=str(tmp_path / "registry"),
        feedback=str(tmp_path / "log"),
        refresh=REFRESH,
    )


def make_live(day: Arguments, checkpoint: Artifact) -> Artifact:
    """Promote a model of the first days, which is a trained one on its items; its checkpoint."""
    first = Path(day.previous).parent
    command = replace(day.command, output=str(first), previous="", incremental=False)
    dataset = stages.prepare(command)
    live = transfer_checkpoint(checkpoint, dataset, command.place("checkpoint"))
    index = build_index(IndexConfig(transitions=0), dataset, live, command.place("index"))
    promote.run(promote.Arguments(day.registry, live.uri, index.uri, "live", 0))
    return live


@pytest.mark.ray
def test_a_day_makes_a_candidate_of_all_events_and_judges_both_on_the_newest(
    day: Arguments, local_ray: None, toy_checkpoint: Artifact
) -> None:
    live = make_live(day, toy_checkpoint)
    verdict = refresh(day, day.command)

    dataset = open_artifact(f"{day.output}/dataset", "dataset")
    world = generate(WORLD).interactions
    assert dataset.read_json("quality.json")["tables"]["interactions"]["read"] == len(world)
    candidate = open_artifact(f"{day.output}/checkpoint", "checkpoint")
    assert candidate.manifest.parents["start_from"] == live.digest
    assert candidate.manifest.config["training"]["epochs"] == 1

    scores = read_row_scores(verdict, [LIVE, CANDIDATE])
    rows = dataset.manifest.facts["rows"]["test"]
    assert scores.of("all").shape == (rows, 2, 3)
    assert rows > 20
    told = verdict.read_json("gate.json")
    assert told["judged"][0]["rows"] == rows
    assert told["passed"] == (told["reasons"] == [])
    version = Registry(day.registry).alias("live")
    assert version is not None
    assert verdict.manifest.parents["live"].startswith(version.version.split("-")[1])

    again = replace(day, previous=f"{day.output}/dataset", output=f"{day.output}-again")
    with pytest.raises(ValueError, match="no interactions that are newer"):
        refresh(again, again.command)


def test_a_loop_needs_a_live_model(day: Arguments) -> None:
    with pytest.raises(ValueError, match="nothing is live"):
        refresh(day, day.command)


def test_a_canary_is_of_a_candidate(day: Arguments) -> None:
    with pytest.raises(ValueError, match="--canary needs --alias candidate"):
        run(replace(day, canary="experiments.toml", alias="live"))
    assert not Path(day.output).exists()


def test_a_split_that_is_not_by_time_is_refused_before_anything_starts(day: Arguments) -> None:
    text = day.config.read_text().replace('"time"', '"leave_last_out"')
    day.config.write_text(text)
    with pytest.raises(ValueError, match="a loop needs 'time'"):
        run(day)
    assert isinstance(day.command, Command)
    assert not Path(day.output).exists()

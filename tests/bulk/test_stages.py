"""Recommendations, audiences and forecasts of a real dataset, checkpoint and index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from recsys.artifact import Artifact, open_artifact
from recsys.bulk import demand
from recsys.bulk.audience import AUDIENCE, audience
from recsys.bulk.forecast import FORECAST, REPORT, forecast
from recsys.bulk.histories import Reading, histories_of_users
from recsys.bulk.recommend import FOLDER, Recommending, Task, recommend
from recsys.config.bulk import AudienceConfig, ForecastConfig, HistoriesConfig, RecommendConfig
from recsys.data.split import SplitPlan
from recsys.engine.recommender import Recommender

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
HISTORIES = HistoriesConfig(batch_size=64)
ALL = Reading(None, False, SplitPlan("leave_last_out"), "all")


def users_of(dataset: Artifact) -> dict:
    files = [histories_of_users(dataset.read_table(n), ALL) for n in dataset.names("events/")]
    return {user: h for ids, found in files for user, h in zip(ids.to_pylist(), found, strict=True)}


def table_of(made: Artifact, prefix: str) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(pl.from_arrow(made.read_table(n))) for n in made.names(prefix)])


def test_every_user_is_recommended_what_the_recommender_answers(
    toy_dataset: Artifact, toy_checkpoint: Artifact, toy_index: Artifact, tmp_path: Path
) -> None:
    parents = (toy_dataset, toy_checkpoint, toy_index)
    made = recommend(RecommendConfig(top_k=3), HISTORIES, *parents, str(tmp_path / "made"))
    rows = table_of(made, FOLDER)
    users = users_of(toy_dataset)
    assert set(rows["user_id"]) == set(users)
    assert made.manifest.facts["users"] == toy_dataset.manifest.facts["num_users"] == len(users)
    recommender = Recommender.load(toy_checkpoint, toy_index, filter_seen=True)
    ids = toy_index.read_table("items.parquet")["item_id"].to_pylist()
    some = sorted(users)[::60]
    ranked = recommender.rank([users[user] for user in some], [3] * len(some), [[]] * len(some))
    for user, wanted in zip(some, ranked, strict=True):
        found = rows.filter(pl.col("user_id") == user)
        assert found["item_id"].to_list() == [ids[item] for item in wanted.item_indexes]
        assert found["rank"].to_list() == [1, 2, 3]
        assert found["score"].to_list() == pytest.approx(wanted.scores, abs=1e-5)
    wanted = {n: a.digest for n, a in zip(("dataset", "checkpoint", "index"), parents, strict=True)}
    assert made.manifest.parents == wanted
    task = Task(str(tmp_path / "one"), *(a.uri for a in parents), RecommendConfig(top_k=3), ALL, 64)
    one_actor = Recommending(task)
    for part, name in reversed(list(enumerate(toy_dataset.names("events/")))):
        one_actor(pa.table({"part": [part], "name": [name]}))
    for name in made.names(FOLDER):
        assert (tmp_path / "one" / name).read_bytes() == made.read_bytes(name)


def test_the_audience_of_an_item_are_its_best_users(
    toy_dataset: Artifact, toy_checkpoint: Artifact, toy_index: Artifact, tmp_path: Path
) -> None:
    parents = (toy_dataset, toy_checkpoint, toy_index)
    ids = toy_index.read_table("items.parquet")["item_id"].to_pylist()
    items = [7, 2]
    wanted = [ids[item] for item in items]
    made = audience(AudienceConfig(top_users=5), HISTORIES, wanted, *parents, str(tmp_path / "a"))
    rows = table_of(made, AUDIENCE)
    users = users_of(toy_dataset)
    scorer = Recommender.load(toy_checkpoint, toy_index, filter_seen=False).scorer
    scores = scorer.score(list(users.values()), items).numpy()
    for place, item in enumerate(items):
        free = [n for n, h in enumerate(users.values()) if item not in h.item_indexes]
        best = sorted((-scores[n, place], list(users)[n]) for n in free)[:5]
        found = rows.filter(pl.col("item_id") == ids[item])
        assert found["score"].to_list() == pytest.approx([-score for score, _ in best], abs=1e-5)
        assert found["user_id"].to_list() == [user for _, user in best]
        counts = made.manifest.facts["users"]
        assert counts["scored"][ids[item]] == len(free)
        assert sum(counts[name][ids[item]] for name in counts) == len(users)
    assert rows["item_id"].unique(maintain_order=True).to_list() == wanted
    assert rows["probability"].null_count() == len(rows)


def test_every_item_is_forecast_and_the_newest_days_are_measured(
    toy_dataset: Artifact, tmp_path: Path
) -> None:
    config = ForecastConfig(events=("purchase", "view"))
    made = forecast(config, HISTORIES, toy_dataset, str(tmp_path / "forecast"))
    rows = table_of(made, FORECAST)
    items = toy_dataset.read_table("items.parquet")["item_id"].to_pylist()
    assert rows["item_id"].to_list() == items
    assert (rows["low"] <= rows["high"]).all()
    assert (rows["expected"] >= 0).all()
    report = made.read_json(REPORT)
    judged = report["held_out"]
    assert judged == made.manifest.facts["held_out"]
    tables = [toy_dataset.read_table(name) for name in toy_dataset.names("events/")]
    events = pl.DataFrame(pl.from_arrow(pa.concat_tables(tables)))
    first = pl.lit(report["measured_from"]).str.to_datetime().dt.epoch("s")
    names = toy_dataset.manifest.config["prepare"]["events"]
    kinds = [names.index(name) for name in config.events]
    counted = events.filter(pl.col("timestamp") >= first, pl.col("event_index").is_in(kinds))
    assert judged["events"] == len(counted)


def test_the_demand_of_a_file_is_the_activity_of_its_users(
    toy_dataset: Artifact, toy_checkpoint: Artifact, toy_index: Artifact
) -> None:
    name = toy_dataset.names("events/")[0]
    times = toy_dataset.read_table(name)["timestamp"].to_numpy()
    origins = (float(np.median(times)), float(times.max() + 1))
    task = demand.Task(toy_dataset.uri, toy_checkpoint.uri, toy_index.uri, origins, 5, 64)
    units = demand.Spreading(task)(pa.table({"part": [0], "name": [name]}))
    ages = [(origin - times[times < origin]) / 86_400 for origin in origins]
    whole = sum((0.5 ** (age / 28.0)).sum() for age in ages)
    found = units["units"].to_numpy().sum() / 2**32
    assert found == pytest.approx(whole, rel=0.02)


def test_a_model_that_saw_the_held_out_days_is_refused(
    toy_dataset: Artifact, toy_checkpoint: Artifact, toy_index: Artifact, tmp_path: Path
) -> None:
    place = str(tmp_path / "forecast")
    with pytest.raises(ValueError, match="split by leave_last_out, so the model was trained on"):
        forecast(ForecastConfig(), HISTORIES, toy_dataset, place, (toy_checkpoint, toy_index))
    with pytest.raises(ValueError, match="holds no complete artifact"):
        open_artifact(place, "forecast")

"""From two logs to the outcome of each user: what counts, what does not, and that rows add up."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from recsys.config import AnalysisConfig
from recsys.experiments.exposures import Exposure, NothingLogged, read_exposures, to_table
from recsys.experiments.outcomes import Outcomes, read_outcomes
from tests.experiments.made_logs import DAY, START, exposure, write_logs

HOUR = 3_600
ELSEWHERE = ("nobody", "x", START, "click")
CONFIG = AnalysisConfig(window_hours=2.0, pre_days=7.0)


def outcomes(place: Path, exposures: list[Exposure], events: list[tuple], **more) -> Outcomes:
    write_logs(place, exposures, events)
    return read_outcomes(str(place / "exposures"), str(place / "feedback"), CONFIG, **more)


def row(found: Outcomes, user: str) -> dict:
    return found.users.row(by_predicate=pl.col("user_id") == user, named=True)


@pytest.mark.parametrize(
    ("event", "clicks"),
    [
        (("u", "x", START, "click"), 1),
        (("u", "x", START + 2 * HOUR, "click"), 1),
        (("u", "x", START + 2 * HOUR + 1, "click"), 0),
        (("u", "x", START - 1, "click"), 0),
        (("u", "z", START + 1, "click"), 0),
        (("v", "x", START + 1, "click"), 0),
        (("u", "x", START + 1, "view"), 0),
        (("u", "x", (START + 60) * 1000, "click"), 1),
        (("u", "x", None, "click"), 0),
        (("u", "x", -5, "click"), 0),
        ((None, "x", START + 1, "click"), 0),
        (("u", "x", START + 1, None), 0),
    ],
)
def test_an_event_counts_within_the_window_after_its_item_was_shown_to_its_user(
    tmp_path, event, clicks
):
    found = outcomes(tmp_path, [exposure("u"), exposure("v", items=["y"])], [event])
    assert row(found, "u")["clicks"] == clicks
    assert row(found, "v")["clicks"] == 0
    told = found.counts["feedback"]
    assert told["attributed"] == clicks
    assert told["read"] == sum(told.values()) - told["read"] == 1


def test_a_user_by_hand(tmp_path):
    later = START + 5 * HOUR
    events = [
        ("张三", "x", START + 5, "click"),
        ("张三", "x", START + 6, "click"),
        ("张三", "x", later + 5, "click"),
        ("张三", "y", later + 9, "purchase"),
        ("张三", "x", START - DAY, "click"),
        ("张三", "q", START - DAY, "purchase"),
        ("张三", "q", START - 8 * DAY, "purchase"),
    ]
    exposures = [exposure("张三"), exposure("张三", timestamp=later), exposure("w", "b")]
    found = outcomes(tmp_path, exposures, events)
    assert row(found, "张三") == {
        "user_id": "张三",
        "variant": "a",
        "users": 1,
        "impressions": 4,
        "clicks": 2,
        "converted": 1,
        "first_team_clicks": None,
        "second_team_clicks": None,
        "pre_clicks": 1,
        "pre_conversions": 1,
    }
    assert row(found, "w")["pre_clicks"] == 0
    assert found.experiment == "exp"


def test_what_is_known_before_lies_before_the_first_exposure_of_anybody(tmp_path):
    late = START + 3 * DAY
    events = [("u", "x", START + late, "click") for late in (DAY, 0, -1, -7 * DAY, -7 * DAY - 1)]
    found = outcomes(tmp_path, [exposure("w"), exposure("u", timestamp=late)], events)
    assert row(found, "u")["pre_clicks"] == 2


def test_clicks_on_interleaved_answers_count_for_the_team_of_the_item(tmp_path):
    exposures = [exposure("u", items="xyz", teams=[0, 1, 1]), exposure("w", "b")]
    found = outcomes(tmp_path, exposures, [("u", item, START + 1, "click") for item in "xyz"])
    assert (row(found, "u")["first_team_clicks"], row(found, "u")["second_team_clicks"]) == (1, 2)
    assert row(found, "w")["first_team_clicks"] is None


BAD = {
    "null_request_id": {"request_id": None},
    "null_user_id": {"user_id": ""},
    "null_variant": {"variant": None},
    "bad_timestamp": {"timestamp": -1},
    "no_items": {"item_ids": []},
    "null_item_id": {"item_ids": ["x", None]},
    "uneven_lists": {"propensities": [0.5]},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_refused_with_its_reason_and_the_others_stay(tmp_path, reason):
    good = to_table([exposure("u"), exposure("w", "b")])
    rows = good.to_pylist()
    broken = rows[0] | {"request_id": "r9", "user_id": "u9"} | BAD[reason]
    write_logs(tmp_path, pa.Table.from_pylist([rows[0], broken, rows[1]], good.schema), [])
    found = read_exposures(str(tmp_path / "exposures"))
    assert found.rows["user_id"].to_list() == ["u", "w"]
    assert found.counts == {"read": 3, "kept": 2, "refused": 1}
    assert found.reasons == {reason: 1}


def test_rows_written_twice_and_users_of_two_variants_are_refused(tmp_path):
    exposures = [exposure("u"), exposure("u"), exposure("two", "a"), exposure("two", "b")]
    exposures += [exposure("two", "b", experiment="other"), exposure("w", "b")]
    write_logs(tmp_path, exposures, [])
    found = read_exposures(str(tmp_path / "exposures"), "exp")
    assert found.rows["user_id"].to_list() == ["u", "w"]
    assert found.reasons == {"crossed_over": 2, "duplicate": 1}
    assert found.counts == {"read": 5, "kept": 2, "refused": 3}
    everything = read_exposures(str(tmp_path / "exposures"))
    assert everything.rows["experiment"].to_list() == ["exp", "other", "exp"]


def test_requests_in_no_experiment_are_counted_and_left_out(tmp_path):
    alone = exposure("n", None, experiment=None)
    found = outcomes(tmp_path, [exposure("u"), alone, exposure("w", "b")], [ELSEWHERE])
    assert found.users["user_id"].to_list() == ["u", "w"]
    told = found.counts["exposures"]
    assert (told["read"], told["kept"], told["no_experiment"], told["refused"]) == (3, 2, 1, 0)


def test_the_experiment_is_named_where_several_are_logged(tmp_path):
    exposures = [exposure("u"), exposure("w", experiment="other")]
    with pytest.raises(ValueError, match="name the experiment.*exp, other"):
        outcomes(tmp_path, exposures, [ELSEWHERE])
    found = outcomes(tmp_path, exposures, [ELSEWHERE], experiment="other")
    assert found.users["user_id"].to_list() == ["w"]
    with pytest.raises(ValueError, match="nothing of experiment 'third'; it has: exp, other"):
        outcomes(tmp_path, exposures, [ELSEWHERE], experiment="third")


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="exposures"):
        read_exposures(str(tmp_path / "exposures"))
    write_logs(tmp_path, to_table([exposure("u")]).drop_columns(["variant"]), [])
    with pytest.raises(ValueError, match=r"part-0.parquet: column 'variant' is missing"):
        read_exposures(str(tmp_path / "exposures"))
    (tmp_path / "exposures" / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part-0.parquet is empty, truncated or not Parquet"):
        read_exposures(str(tmp_path / "exposures"))


def test_older_days_are_not_opened(tmp_path):
    write_logs(tmp_path, [exposure("u")], [("u", "x", START + 5, "click")])
    for name in ("exposures", "feedback"):
        folder = tmp_path / name
        for day in ("2025-06-14", "2025-06-15"):
            (folder / f"date={day}").mkdir()
        (folder / "date=2025-06-14" / "part-1.parquet").write_bytes(b"half a file")
        (folder / "part-0.parquet").rename(folder / "date=2025-06-15" / "part-0.parquet")
    logs = str(tmp_path / "exposures"), str(tmp_path / "feedback")
    assert row(read_outcomes(*logs, CONFIG, since="2025-06-15"), "u")["clicks"] == 1
    with pytest.raises(ValueError, match="date=2025-06-14"):
        read_outcomes(*logs, CONFIG)
    with pytest.raises(NothingLogged, match="no files from 2025-06-16 on"):
        read_outcomes(*logs, CONFIG, since="2025-06-16")


def test_without_events_there_is_nothing_to_judge(tmp_path):
    with pytest.raises(ValueError, match="'feedback' has no rows"):
        outcomes(tmp_path, [exposure("u")], [])


def test_an_exposure_whose_lists_differ_in_length_is_refused():
    with pytest.raises(ValueError, match="one length"):
        exposure("u", scores=[0.5])

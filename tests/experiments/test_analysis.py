"""The verdict: of the split, of every comparison, and of the command line that prints it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from recsys.artifact import open_artifact
from recsys.config import AnalysisConfig, ExperimentConfig, VariantConfig
from recsys.eval.experiment_page import render_experiment
from recsys.experiments.analysis import (
    MISMATCH_LEVEL,
    analyse,
    holm,
    sample_ratio_p_value,
    users_needed,
)
from recsys.experiments.differences import Sample, compare
from recsys.experiments.outcomes import Outcomes
from tests.experiments.made_logs import START, clicking_users, exposure, write_logs
from tests.html_page import Page

ROOT = Path(__file__).parents[2]
CONFIG = AnalysisConfig()
COUNTS = {"exposures": {"read": 1, "kept": 1}, "feedback": {"read": 1}}


def experiment(**shares: float) -> ExperimentConfig:
    variants = [VariantConfig(name=name, share=share) for name, share in shares.items()]
    return ExperimentConfig(name="exp", salt="s", variants=variants)


def outcomes(seed: int, users: int = 2_000, **lifts: float) -> Outcomes:
    """Users who click, and half of those who do convert; a variant for each lift."""
    rng = np.random.default_rng(seed)
    parts = []
    for variant, lift in lifts.items():
        drawn = clicking_users(rng, users, lift)
        assert drawn.covariate is not None
        part = {
            "user_id": [f"{variant}{n}" for n in range(users)],
            "variant": [variant] * users,
            "users": [1] * users,
            "impressions": drawn.denominator.astype(int),
            "clicks": drawn.numerator.astype(int),
            "converted": (drawn.numerator > 0) & (rng.random(users) < 0.5),
            "pre_clicks": drawn.covariate.astype(int),
            "pre_conversions": [0] * users,
            "first_team_clicks": [None] * users,
            "second_team_clicks": [None] * users,
        }
        parts.append(pl.DataFrame(part).with_columns(pl.col("converted").cast(pl.Int64)))
    return Outcomes("exp", pl.concat(parts), COUNTS)


def of(report: dict, metric: str, variant: str) -> dict:
    found = report["comparisons"]
    return next(each for each in found if (each["metric"], each["variant"]) == (metric, variant))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5)])
def test_a_sound_split_alarms_as_often_as_it_says(shares):
    drawn = np.random.default_rng(0).multinomial(20_000, shares, size=1_000)
    p_values = np.array([sample_ratio_p_value(counts, shares) for counts in drawn])
    for level in (0.05, 0.01):
        low, high = binom.interval(0.999, 1_000, level)
        assert low <= (p_values < level).sum() <= high


def test_a_variant_that_loses_a_tenth_of_its_users_is_found():
    drawn = np.random.default_rng(1).multinomial(20_000, [0.45, 0.5, 0.05], size=200)
    found = [sample_ratio_p_value(counts[:2], [0.5, 0.5]) < MISMATCH_LEVEL for counts in drawn]
    assert np.mean(found) > 0.99


def test_the_split_by_hand():
    # (60 - 50)^2 / 50 twice is 4; a chi-square of one degree passes 4 with 0.0455.
    assert sample_ratio_p_value([60, 40], [0.5, 0.5]) == pytest.approx(0.0455, abs=1e-4)
    assert sample_ratio_p_value([90, 10], [0.9, 0.1]) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_alarm():
    rng = np.random.default_rng(1)
    alarms = sum(min(holm(row)) < 0.05 for row in rng.random((2_000, 6)))
    low, high = binom.interval(0.999, 2_000, 0.05)
    assert low <= alarms <= high


def test_as_many_users_as_the_calculator_says_find_the_effect_as_often_as_it_says():
    rng = np.random.default_rng(2)
    spread = float(clicking_users(rng, 100_000).contributions().std())
    users = users_needed(spread, effect=0.03, level=0.95, power=0.8)
    found = 0
    for _ in range(400):
        pair = clicking_users(rng, users), clicking_users(rng, users, 0.03)
        found += compare(*(Sample(s.numerator, s.denominator) for s in pair), 0.95).low > 0
    low, high = binom.interval(0.999, 400, 0.8)
    assert low <= found <= high


def test_the_better_variant_is_told_and_one_without_effect_is_not():
    report = analyse(outcomes(3, control=0.0, same=0.0, tiger=0.05), CONFIG)
    same, tiger = of(report, "ctr", "same"), of(report, "ctr", "tiger")
    assert tiger["low"] <= 0.05 <= tiger["high"]
    assert same["low"] <= 0 <= same["high"]
    sentences = report["verdicts"]
    assert sentences[0].startswith("no difference is shown: CTR of same ")
    assert sentences[1].startswith("tiger is better than control: CTR of tiger +0.05")
    assert sentences[1].endswith("95%")
    judged = [each["p_value"] for each in report["comparisons"]]
    assert [each["p_holm"] for each in report["comparisons"]] == holm(judged)
    assert report["variants"]["tiger"]["users"] == 2_000


def test_a_worse_variant_loses():
    report = analyse(outcomes(4, a=0.06, b=0.0), CONFIG)
    assert report["verdicts"][0].startswith("a is better than b: CTR of b -0.0")


def test_the_control_is_the_first_of_the_config():
    report = analyse(outcomes(5, a=0.0, b=0.05), CONFIG, experiment(b=0.5, a=0.5))
    assert {each["control"] for each in report["comparisons"]} == {"b"}
    assert not report["split"]["shares_assumed"]


def test_a_split_that_does_not_fit_comes_before_every_other_verdict():
    report = analyse(outcomes(6, a=0.0, b=0.0), CONFIG, experiment(a=0.6, b=0.4))
    assert report["split"]["mismatch"]
    assert report["verdicts"][0].startswith("do not trust this test: the users of the variants (a")
    assert "does not fit" in Page(render_experiment(report)).text


def test_a_variant_that_nobody_saw_is_a_mismatch_and_has_too_little_data():
    report = analyse(outcomes(7, a=0.0), CONFIG, experiment(a=0.5, b=0.5))
    assert report["split"]["users"] == {"a": 2_000, "b": 0}
    assert report["split"]["mismatch"]
    assert "too little data: CTR of b against a" in report["verdicts"]
    assert report["variants"]["b"]["ctr"] == {"value": None, "low": None, "high": None}
    Page(render_experiment(report))


def test_a_handful_of_users_is_too_little_data():
    report = analyse(outcomes(8, users=3, a=0.0, b=0.0), CONFIG)
    assert all(line.startswith("too little data") for line in report["verdicts"])
    json.dumps(report, allow_nan=False)


def test_sequential_intervals_are_wider_and_said_to_be():
    users = outcomes(9, a=0.0, b=0.02)
    once = of(analyse(users, CONFIG), "ctr", "b")
    report = analyse(users, AnalysisConfig(sequential=True))
    often = of(report, "ctr", "b")
    assert often["low"] < once["low"] < once["high"] < often["high"]
    assert often["difference"] == once["difference"]
    assert "any number" in Page(render_experiment(report)).text


def test_interleaved_clicks_are_judged():
    rng = np.random.default_rng(10)
    users = outcomes(10, a=0.0, b=0.0)
    first, second = ([None] * 2_000 + rng.poisson(rate, 2_000).tolist() for rate in (0.5, 1.0))
    credit = (pl.Series("first_team_clicks", first), pl.Series("second_team_clicks", second))
    interleaved = Outcomes("exp", users.users.with_columns(*credit), COUNTS)
    found = analyse(interleaved, CONFIG)
    assert found["interleaving"]["second_wins"] > found["interleaving"]["first_wins"]
    assert found["verdicts"][-1].startswith("interleaving prefers the second ranker")


def test_a_variant_that_the_config_lacks_and_a_lone_variant_are_refused():
    with pytest.raises(ValueError, match="users saw c; its config has only: a, b"):
        analyse(outcomes(11, a=0.0, c=0.0), CONFIG, experiment(a=0.5, b=0.5))
    with pytest.raises(ValueError, match="only 'a' was shown"):
        analyse(outcomes(11, a=0.0), CONFIG)


def test_the_page_is_whole_and_escapes_what_others_named():
    report = analyse(outcomes(12, a=0.0, **{"<b>": 0.05}), CONFIG)
    html = render_experiment(report | {"experiment": "<script>老虎"})
    page = Page(html)
    assert "script" not in page.tags
    assert "<script>老虎" in page.text
    assert page.tags.count("svg") == 2
    for line in report["verdicts"]:
        assert line in page.text


def test_the_command_prints_a_verdict_and_writes_a_report(tmp_path):
    rng = np.random.default_rng(13)
    users = [(f"u{n}", "ab"[n % 2]) for n in range(400)]
    clicks = [
        (u, "x", START + 9, "click") for u, v in users if rng.random() < 0.2 + 0.4 * (v == "b")
    ]
    write_logs(tmp_path, [exposure(*user) for user in users], clicks)
    toml = 'name="exp"\nsalt="s"\nvariants=[{name="a",share=0.5},{name="b",share=0.5}]\n'
    (tmp_path / "tests.toml").write_text(f"[[experiments]]\n{toml}")
    done = analyze(
        *("--exposures", f"{tmp_path}/exposures", "--feedback", f"{tmp_path}/feedback"),
        *("--experiments", f"{tmp_path}/tests.toml", "--output", f"{tmp_path}/report"),
        *("--window-hours", "1", "--power", "0.9"),
    )
    assert done.returncode == 0, done.stderr
    assert "b is better than a: CTR of b +0." in done.stdout
    assert "to find +5.0% ctr with power 90%: " in done.stdout
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/report"
    report = open_artifact(f"{tmp_path}/report", "report")
    assert report.read_json("report.json")["split"]["users"] == {"a": 200, "b": 200}
    assert report.names() == ["report.html", "report.json"]


def analyze(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs.analyze", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_bad_flag_is_told_without_a_stack_trace(tmp_path):
    done = analyze("--exposures", f"{tmp_path}/no", "--feedback", "x", "--level", "1.5")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "level" in done.stderr

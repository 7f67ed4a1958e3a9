"""Who sees which variant: sticky, in the planned shares, and unmoved by a ramp."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.config import ExperimentConfig, VariantConfig, parse_experiments
from recsys.experiments.analysis import sample_ratio_p_value
from recsys.experiments.assignment import assign, variant_of

USERS = [f"user-{n}" for n in range(20_000)]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def experiment(shares=(0.5, 0.5), salt="s1", name="exp", **more) -> ExperimentConfig:
    variants = [VariantConfig(name=f"v{n}", share=share) for n, share in enumerate(shares)]
    return ExperimentConfig(name=name, salt=salt, variants=variants, **more)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5)])
@pytest.mark.parametrize("salt", ["s1", "another"])
def test_users_are_divided_as_planned(shares, salt):
    found = [variant_of(experiment(shares, salt), user) for user in USERS]
    counts = [found.count(f"v{n}") for n in range(len(shares))]
    assert sum(counts) == len(USERS)
    assert sample_ratio_p_value(counts, shares) > 0.001


def test_a_ramp_takes_in_its_share_and_divides_it_as_planned():
    found = [variant_of(experiment((0.8, 0.2), ramp=0.3), user) for user in USERS]
    inside = [variant for variant in found if variant]
    assert len(inside) / len(USERS) == pytest.approx(0.3, abs=0.015)
    assert inside.count("v1") / len(inside) == pytest.approx(0.2, abs=0.02)
    assert not any(variant_of(experiment(ramp=0.0), user) for user in USERS)


user_ids = st.text(st.characters(codec=None), max_size=20)


@settings(deadline=None, max_examples=200)
@given(
    user_ids,
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
    st.sampled_from([(0.5, 0.5), (0.1, 0.9)]),
)
def test_ramping_up_never_moves_a_user_nor_sends_one_away(user, ramps, shares):
    found = [variant_of(experiment(shares, ramp=ramp), user) for ramp in sorted(ramps)]
    inside = [variant for variant in found if variant is not None]
    assert found == [None] * (len(found) - len(inside)) + inside
    assert len(set(inside)) <= 1
    assert variant_of(experiment(shares), user) in ("v0", "v1")


def test_experiments_divide_users_apart_from_each_other():
    first, second = experiment(salt="s1"), experiment(salt="s2")
    both = [(variant_of(first, user), variant_of(second, user)) for user in USERS]
    counts = [both.count((a, b)) for a in ("v0", "v1") for b in ("v0", "v1")]
    assert sample_ratio_p_value(counts, [0.25] * 4) > 0.001


def test_being_in_the_experiment_says_nothing_about_the_variant():
    inside = [u for u in USERS if variant_of(experiment(ramp=0.1), u)]
    outside = [u for u in USERS if not variant_of(experiment(ramp=0.1), u)]
    shares = [
        np.mean([variant_of(experiment(), u) == "v0" for u in part]) for part in (inside, outside)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.04)


def test_another_process_gives_the_same_answer():
    code = (
        "from tests.experiments.test_assignment import *\n"
        "print(*(variant_of(experiment(ramp=0.5), u) for u in [*USERS[:50], '张三']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    here = [variant_of(experiment(ramp=0.5), user) for user in [*USERS[:50], "张三"]]
    assert done.stdout.split() == [str(variant) for variant in here]


def test_a_user_is_in_what_runs_now():
    start, end = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    running = [
        experiment(name="now", salt="a", start=start, end=end),
        experiment(name="ever", salt="b"),
    ]
    over = [
        experiment(name="over", salt="c", end=NOW),
        experiment(name="later", salt="d", start=end),
    ]
    assert set(assign([*running, *over], "u", NOW)) == {"now", "ever"}
    assert set(assign([experiment(name="none", salt="e", ramp=0.0)], "u", NOW)) == set()
    assert set(assign(running, "u", start)) == {"now", "ever"}
    assert set(assign(running, "u", end)) == {"ever"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shares": (0.5, 0.4)}, "sum to 0.9: they must sum to 1"),
        ({"shares": (1.0,)}, "less than 1"),
        ({"salt": ""}, "salt"),
        ({"ramp": 1.1}, "ramp"),
        ({"start": NOW, "end": NOW}, "ends before it starts"),
        ({"start": NOW.replace(tzinfo=None)}, "timezone"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(change, told):
    with pytest.raises(ValidationError, match=told):
        experiment(**change)


TOML = """
[[experiments]]
name = "exp"
salt = "2026-05"
ramp = 0.1
start = 2026-05-01T08:00:00+08:00
variants = [{name = "control", share = 0.5}, {name = "tiger", share = 0.5}]
"""


def test_experiments_are_read_from_toml():
    (found,) = parse_experiments(TOML, "here").experiments
    assert [variant.name for variant in found.variants] == ["control", "tiger"]
    assert found.is_running(datetime(2026, 5, 1, tzinfo=UTC))
    assert not found.is_running(datetime(2026, 4, 30, 23, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TOML + TOML.replace('"exp"', '"other"'), "here: config: .*salts must differ.*2026-05"),
        (TOML + TOML.replace('"2026-05"', '"s"'), "names must differ.*exp"),
        (TOML.replace("ramp", "rampe"), "experiments.0.rampe"),
        (
            TOML.replace('{name = "control", s', '{name = "control", colour = 1, s'),
            "variants.0.colour",
        ),
        ("experiments = [", "here is not valid TOML"),
    ],
)
def test_a_faulty_file_is_told_with_its_place_and_key(text, told):
    with pytest.raises(ValueError, match=told):
        parse_experiments(text, "here")

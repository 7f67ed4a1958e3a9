"""A sweep: what may be tried, how a trial's settings are made, and what is kept."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys.artifact import Artifact
from recsys.config import ModelConfig, SweepConfig, TrainingConfig
from recsys.config.job import read_toml
from recsys.models.build import SCORE
from recsys.training.sweep import (
    _domain,
    as_toml,
    check_space,
    settings_with,
    sweep,
    trials_name,
)
from recsys.training.sweep_page import sweep_page
from tests.conftest import TOY_TRAINING
from tests.training.test_ingest import write_dataset

RATE, LAYERS = "training.learning_rate", "model.num_layers"


def space(**values: object) -> SweepConfig:
    return SweepConfig.model_validate({"space": values})


def test_the_space_that_is_shipped_can_be_swept():
    config = read_toml("ray_jobs/configs/spaces/usual.toml", SweepConfig)
    check_space(config, ModelConfig(), TrainingConfig())
    assert len(config.space) == 5


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("training.learning_rat", [1e-3], "cannot be swept"),
        ("learning_rate", [1e-3], "cannot be swept"),
        ("training.epochs", [1, 2], "cannot be swept"),
        (RATE, [1e-3, -1.0], "learning_rate = -1.0"),
        (LAYERS, {"low": 0, "high": 2, "whole": True}, "num_layers = 0"),
        ("model.num_heads", [3], "num_heads"),
    ],
)
def test_what_cannot_be_tried_is_told_before_anything_starts(key, values, told):
    with pytest.raises(ValueError, match=told):
        check_space(space(**{key: values}), ModelConfig(), TrainingConfig())


@pytest.mark.parametrize(
    "values", [{"low": 2.0, "high": 1.0}, {"low": 0.0, "high": 1.0, "log": True}, []]
)
def test_a_range_is_a_range_and_a_list_has_something_in_it(values):
    with pytest.raises(ValidationError):
        space(**{RATE: values})


def test_whole_ranges_give_both_their_ends_and_no_fractions():
    domain = _domain(space(x={"low": 1, "high": 3, "whole": True}).space["x"])
    assert {domain.sample() for _ in range(200)} == {1, 2, 3}
    rates = _domain(space(x={"low": 1e-4, "high": 1e-2, "log": True}).space["x"])
    drawn = sorted(rates.sample() for _ in range(400))
    assert 5e-4 < drawn[200] < 2e-3  # the middle by logarithm is 1e-3


def test_a_trial_differs_in_its_values_alone():
    model, training = settings_with({RATE: 0.5, LAYERS: 7}, ModelConfig(), TrainingConfig(seed=3))
    assert model == ModelConfig(num_layers=7)
    assert training == TrainingConfig(seed=3, learning_rate=0.5)


def test_trials_of_another_space_setting_or_dataset_are_not_taken_over(dataset, tmp_path):
    other = write_dataset(tmp_path, [[2, 3, 4]])
    names = {
        trials_name(space(x=values), ModelConfig(), TrainingConfig(seed=seed), data)
        for values in ([1, 2], [1, 3])
        for seed in (0, 1)
        for data in (dataset, other)
    }
    assert len(names) == 8


def test_private_training_is_not_swept():
    private = TrainingConfig.model_validate(
        {"num_workers": 1, "zero_stage": 0, "max_rollbacks": 0, "precision": "fp32"}
        | {"privacy": {"noise_multiplier": 1.0}}
    )
    with pytest.raises(ValueError, match="adds to epsilon"):
        check_space(space(**{RATE: [1e-3]}), ModelConfig(item_features="text"), private)


def test_the_best_can_be_put_into_a_config_file():
    values = {RATE: 0.001, "model.use_time": True, "training.precision": "fp32", LAYERS: 2}
    assert tomllib.loads(as_toml(values)) == {
        "model": {"use_time": True, "num_layers": 2},
        "training": {"learning_rate": 0.001, "precision": "fp32"},
    }


def test_the_page_tells_scores_values_and_why_a_trial_ended():
    rows = [({RATE: 0.5}, [0.1, 0.2], ""), ({RATE: 0.25}, [0.05], ""), ({RATE: 9.0}, [], "<bad>")]
    page = sweep_page("ndcg", rows, "[training]", epochs=2)
    assert "0.2000" in page
    assert page.count("stopped early") == 1
    assert "&lt;bad&gt;" in page


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_the_best_trial_by_validation_is_kept_and_a_bad_one_stopped(
    tmp_path: Path, toy_dataset: Artifact, toy_model: ModelConfig
):
    training = TOY_TRAINING.model_copy(update={"epochs": 2})
    config = SweepConfig.model_validate(
        {"space": {RATE: [5e-3, 1e-9]}, "trials": 2, "min_epochs": 1, "keep_one_of": 2, "seed": 1}
    )
    made = sweep(config, toy_model, training, toy_dataset, str(tmp_path / "sweep"))
    trials = made.read_json("trials.json")
    assert [len(trial["scores"]) for trial in trials] == [2, 1]
    assert made.manifest.facts["best"] == max(max(trial["scores"]) for trial in trials)
    best = tomllib.loads(made.read_bytes("best.toml").decode())
    assert best["training"]["learning_rate"] == trials[0]["values"][RATE]
    assert SCORE in made.read_bytes("sweep.html").decode()

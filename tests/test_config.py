"""Configs: what is refused and how it is told, and what survives a round trip."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ValidationError

import recsys.config
from recsys.config import (
    JobConfig,
    ModelConfig,
    PrepareConfig,
    Section,
    ServeArgs,
    SplitConfig,
    TrainingConfig,
    WorldConfig,
    describe,
    load_config,
)

SECTIONS = [
    value
    for value in vars(recsys.config).values()
    if isinstance(value, type) and issubclass(value, Section) and value is not Section
]


def load(tmp_path, text: str) -> JobConfig:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def refusal(tmp_path, text: str) -> str:
    """The message with which a TOML text is refused; it names the file."""
    with pytest.raises(ValueError, match=r"run\.toml") as caught:
        load(tmp_path, text)
    assert type(caught.value) is ValueError
    return str(caught.value)


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load(tmp_path, "") == JobConfig()


def test_values_of_the_file_are_taken_and_the_rest_is_default(tmp_path):
    config = load(tmp_path, "[training]\nepochs = 3\n[prepare.split]\nstrategy = 'time'\n")
    assert config.training == TrainingConfig(epochs=3)
    assert config.prepare.split == SplitConfig(strategy="time")
    assert config.model == ModelConfig()


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("[training]\nepoch = 3", "training.epoch", TrainingConfig),
        ("[prepare.split]\ntest_day = 3", "prepare.split.test_day", SplitConfig),
        ("trainings = 3", "trainings", JobConfig),
    ],
)
def test_an_unknown_key_is_told_with_its_path_and_the_allowed_ones(tmp_path, text, key, allowed):
    message = refusal(tmp_path, text)
    assert f"{key}: unknown key; allowed here: " in message
    listed = message.split("allowed here: ")[1].split(", ")
    assert listed == sorted(allowed.model_fields)


@pytest.mark.parametrize(
    ("text", "key", "given"),
    [
        ("[training]\nepochs = 'many'", "training.epochs", "'many'"),
        ("[training]\nepochs = 1.5", "training.epochs", "1.5"),
        ("[model]\nwhiten = 'perhaps'", "model.whiten", "'perhaps'"),
        ("[prepare]\nevents = 'view'", "prepare.events", "'view'"),
        ("[prepare]\nevents = [1]", "prepare.events.0", "1"),
        ("training = 3", "training", "3"),
        ("[model]\nbackbone = 3", "model.backbone", "3"),
    ],
)
def test_a_wrong_type_is_told_with_its_path_and_what_was_given(tmp_path, text, key, given):
    message = refusal(tmp_path, text)
    assert f" {key}: " in message
    assert f"(given: {given})" in message


@pytest.mark.parametrize(
    ("text", "key", "bound"),
    [
        ("[training]\nepochs = 0", "training.epochs", "greater than 0"),
        ("[training]\nzero_stage = 4", "training.zero_stage", "less than or equal to 3"),
        ("[training]\nmax_failures = -2", "training.max_failures", "greater than or equal to -1"),
        ("[training]\nseed = -1", "training.seed", "greater than or equal to 0"),
        ("[training]\nlearning_rate = 0.0", "training.learning_rate", "greater than 0"),
        ("[training]\nlearning_rate = inf", "training.learning_rate", "finite"),
        ("[training]\nwarmup_share = 1.1", "training.warmup_share", "less than or equal to 1"),
        ("[model]\ndropout = 1.0", "model.dropout", "less than 1"),
        ("[model]\ntemperature = nan", "model.temperature", "finite"),
        ("[model]\ntuning = 'half'", "model.tuning", "'frozen', 'lora' or 'full'"),
        ("[prepare]\nmax_item_tokens = 3", "prepare.max_item_tokens", "greater than or equal to 4"),
        ("[prepare.split]\ntest_days = 0", "prepare.split.test_days", "greater than 0"),
        ("[prepare.split]\nstrategy = 'random'", "prepare.split.strategy", "'leave_last_out'"),
        ("[evaluation]\ncutoffs = [5, 0]", "evaluation.cutoffs.1", "greater than 0"),
        ("[evaluation]\nsplit = 'train'", "evaluation.split", "'valid' or 'test'"),
    ],
)
def test_a_value_out_of_bounds_is_told_with_its_path_and_the_bound(tmp_path, text, key, bound):
    message = refusal(tmp_path, text)
    assert f" {key}: " in message
    assert bound in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[model]\nitem_features = 'id'\ntuning = 'lora'", ("'id'", "'lora'", "model: ")),
        ("[model]\nitem_features = 'id'\ntuning = 'full'", ("'id'", "'full'", "model: ")),
        ("[model]\nembedding_size = 10\nnum_heads = 3", ("embedding_size 10", "num_heads 3")),
        (
            "[training]\nglobal_batch_size = 10\nnum_workers = 4",
            ("global_batch_size 10", "num_workers 4", "training: "),
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path, text, named):
    message = refusal(tmp_path, text)
    assert all(part in message for part in named)


@pytest.mark.parametrize(
    "text",
    [
        "[model]\nitem_features = 'id'",
        "[model]\ntuning = 'lora'",
        "[model]\nembedding_size = 12\nnum_heads = 3",
        "[training]\nglobal_batch_size = 12\nnum_workers = 4",
    ],
)
def test_settings_that_fit_together_are_taken(tmp_path, text):
    load(tmp_path, text)


def test_every_fault_of_a_file_is_told(tmp_path):
    message = refusal(tmp_path, "[training]\nepoch = 1\nepochs = 0\n[model]\ndropout = 2.0\n")
    for key in ("training.epoch:", "training.epochs:", "model.dropout:"):
        assert key in message


@pytest.mark.parametrize("text", ["[training\nepochs = 3", "epochs", "a = 1\na = 2"])
def test_text_that_is_not_toml_is_refused_with_the_file(tmp_path, text):
    assert "is not valid TOML" in refusal(tmp_path, text)


def test_bytes_that_are_not_text_are_refused_with_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"run\.toml"):
        load_config(path)


def test_describe_tells_the_faults_of_any_section():
    with pytest.raises(ValidationError) as caught:
        ServeArgs.model_validate({"checkpoint": 3, "index": "i", "max_topk": 3})
    message = describe(caught.value, ServeArgs)
    assert "checkpoint: Input should be a valid string" in message
    assert "max_topk: unknown key; allowed here: " in message
    assert "max_top_k" in message


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (JobConfig(), "training", TrainingConfig()),
        (JobConfig().training, "epochs", 3),
        (JobConfig().prepare.split, "strategy", "time"),
        (WorldConfig(), "seed", 1),
    ],
)
def test_a_config_cannot_be_changed(section, name, value):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section, name, value)


@pytest.mark.parametrize(
    "config",
    [
        JobConfig(),
        JobConfig(
            prepare=PrepareConfig(
                split=SplitConfig(strategy="time", test_days=1.5), num_partitions=3, events=("a",)
            ),
            model=ModelConfig(tuning="lora", lora_rank=4, whiten=False),
            training=TrainingConfig(num_workers=3, global_batch_size=9, learning_rate=1e-5),
        ),
    ],
)
def test_a_config_survives_json(config):
    written = json.dumps(config.model_dump(mode="json"))
    assert JobConfig.model_validate(json.loads(written)) == config


def test_all_sections_are_looked_at():
    assert {JobConfig, ModelConfig, ServeArgs, WorldConfig, SplitConfig} <= set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_says_what_it_means(section: type[BaseModel]):
    assert section.__doc__
    silent = [name for name, field in section.model_fields.items() if not field.description]
    assert silent == []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_refuses_unknown_keys_and_is_frozen(section: type[BaseModel]):
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["frozen"] is True


@pytest.mark.parametrize(
    "args",
    [{}, {"checkpoint": "c"}, {"index": "i"}, {"checkpoint": "c", "index": "i", "registry": "r"}],
)
def test_what_is_served_is_named_once(args):
    with pytest.raises(ValidationError, match="'checkpoint' and 'index', or a 'registry'"):
        ServeArgs.model_validate(args)
    assert ServeArgs.model_validate({"registry": "r"}).registry == "r"


@pytest.mark.parametrize(
    "args",
    [
        {"registry": "r", "ranker": "f"},
        {"checkpoint": "c", "index": "i", "ranker": "f", "search": False},
    ],
)
def test_a_final_ranker_is_named_where_it_can_be_used(args):
    with pytest.raises(ValidationError, match="'ranker' beside 'index', with search on"):
        ServeArgs.model_validate(args)

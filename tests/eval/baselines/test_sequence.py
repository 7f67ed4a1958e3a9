"""Configs of the sequence baselines."""

from __future__ import annotations

import pytest

from recsys.config import AugmentConfig, ModelConfig, TrainingConfig
from recsys.eval.baselines import gru4rec_config, id_only_config, sasrec_config

TOLD = ModelConfig(
    tuning="lora",
    activation_checkpointing=True,
    embedding_size=64,
    num_layers=3,
    num_heads=4,
    dropout=0.1,
    user_encoder="hstu",
    use_time=True,
    use_calendar=True,
    use_repeats=True,
)
TRAINING = TrainingConfig(
    epochs=7,
    learning_rate=1e-3,
    seed=5,
    mask_history_negatives=True,
    rating_weight=0.5,
    probability_weight=0.5,
    event_weights={"purchase": 5.0},
    augment=AugmentConfig(crop=0.5),
)


def test_an_id_only_config_of_any_tuned_model_is_valid():
    ModelConfig.model_validate(id_only_config(TOLD).model_dump())


def test_an_id_only_model_with_a_language_model_may_still_save_memory():
    told = ModelConfig(
        user_encoder="language_model", user_backbone="some/decoder", activation_checkpointing=True
    )
    assert id_only_config(told).activation_checkpointing


@pytest.mark.parametrize(
    ("config_of", "encoder"), [(sasrec_config, "transformer"), (gru4rec_config, "gru")]
)
class TestSequenceConfigs:
    def test_the_model_has_the_same_size_and_reads_item_numbers_alone(self, config_of, encoder):
        model, _ = config_of(TOLD, TRAINING)
        assert (model.user_encoder, model.item_features) == (encoder, "id")
        assert (model.use_time, model.use_calendar, model.use_repeats) == (False, False, False)
        for name in ("embedding_size", "num_layers", "num_heads", "dropout"):
            assert getattr(model, name) == getattr(TOLD, name)

    def test_the_budget_is_the_same_and_the_loss_plain(self, config_of, encoder):
        _, training = config_of(TOLD, TRAINING)
        assert (training.epochs, training.learning_rate, training.seed) == (7, 1e-3, 5)
        assert training.heads == ()
        assert training.event_weights == {}
        assert training.augment == AugmentConfig()
        assert not training.mask_history_negatives

    def test_negatives_are_sampled_as_many_as_the_model_has(self, config_of, encoder):
        assert config_of(TOLD, TRAINING)[1].num_negatives == 256
        sampled = TRAINING.model_copy(update={"num_negatives": 40})
        assert config_of(TOLD, sampled)[1].num_negatives == 40

    def test_a_language_model_gives_way(self, config_of, encoder):
        told = ModelConfig(user_encoder="language_model", user_backbone="some/decoder")
        assert config_of(told, TRAINING)[0].user_backbone is None


def test_a_width_that_heads_do_not_divide_says_so():
    with pytest.raises(ValueError, match="does not divide into num_heads 4"):
        sasrec_config(ModelConfig(user_encoder="gru", embedding_size=66, num_heads=4), TRAINING)


def test_the_id_only_baseline_is_the_same_model_without_text():
    told = ModelConfig(tuning="lora", embedding_size=64, num_layers=3, dropout=0.1)
    baseline = id_only_config(told)
    assert (baseline.item_features, baseline.tuning) == ("id", "frozen")
    differing = {"item_features", "tuning"}
    assert baseline.model_dump(exclude=differing) == told.model_dump(exclude=differing)
    ModelConfig.model_validate(baseline.model_dump())

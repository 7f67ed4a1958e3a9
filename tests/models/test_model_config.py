import pytest
from pydantic import ValidationError

from recsys.config import ModelConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user_encoder": "language_model"}, "'language_model' needs the name of a decoder"),
        ({"user_backbone": "gpt2"}, "'transformer' does not go with user_backbone 'gpt2'"),
        ({"user_encoder": "gru", "user_backbone": "gpt2"}, "'gru' does not go with"),
        ({"activation_checkpointing": True}, "set tuning to 'lora' or 'full'"),
        ({"learn_temperature": True, "temperature": 1.5}, "cannot start at 1.5"),
        ({"learn_temperature": True, "temperature": 0.005}, "between 0.01 and 1.0"),
        ({"user_encoder": "hstu", "num_heads": 3}, "does not divide into num_heads 3"),
        ({"user_encoder": "gru", "embedding_size": 65}, "2 equal part"),
        ({"user_encoder": "rnn"}, "'transformer', 'hstu', 'gru' or 'language_model'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"user_encoder": "gru", "num_heads": 3},
        {"user_encoder": "language_model", "user_backbone": "gpt2", "num_heads": 3},
        {
            "user_encoder": "language_model",
            "user_backbone": "gpt2",
            "activation_checkpointing": True,
        },
        {"tuning": "lora", "activation_checkpointing": True},
        {"temperature": 1.5},
        {"learn_temperature": True, "temperature": 1.0},
    ],
)
def test_options_that_do_are_taken(options):
    assert ModelConfig(**options).model_dump().items() >= options.items()

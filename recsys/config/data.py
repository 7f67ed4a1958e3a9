"""Raw tables to dataset."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recsys.config.section import Names, Section, Share


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
    held_out_history: PositiveInt | None = None
    """Longest history of a row held out for validation or test; None is `max_history`. What a user
    took before is remembered beside the vectors, and may reach further back than the model sees."""
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
    user_columns: Names = ()
    """Columns of the table `users` to keep, for segments of a report; no model sees them."""
    events: Names = ("interaction", "view", "click", "cart", "purchase", "rating")
    """Allowed event names; a missing event counts as the first."""
    keep_values: bool = False
    """Keep the interactions' `value`, a rating or an amount, in histories and targets."""
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

    @property
    def longest_history(self) -> int:
        """Events of a held-out row's history."""
        return max(self.max_history, self.held_out_history or 0)

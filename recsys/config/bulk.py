"""Artifacts to answers for all users or items: recommendations, audiences, forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from recsys.config.job import read_toml
from recsys.config.section import Names, Section
from recsys.config.storage import StorageConfig

Until = Literal["train", "valid", "all"]


class HistoriesConfig(Section):
    """One pass over the histories of all users."""

    until: Until = "all"
    """Newest events that a history holds: those of `train`, of `valid` too, or `all`."""
    num_workers: PositiveInt = 2
    """Ray Data actors, each with a recommender of its own."""
    batch_size: PositiveInt = 256
    """Histories ranked or scored together."""


class RecommendConfig(Section):
    """Recommendations for all users."""

    top_k: PositiveInt = 20
    """Items for each user."""
    filter_seen: bool = True
    """Take items of the history out of the ranking."""


class AudienceConfig(Section):
    """The users who most likely want an item."""

    top_users: PositiveInt = 1_000
    """Users for each item."""
    keep_takers: bool = False
    """Let users be among them who took the item already."""
    taken_events: Names = ()
    """Events that count as taking an item, such as purchase; where none is named, all do."""


class ForecastConfig(Section):
    """Expected events of each item."""

    days: PositiveInt = 7
    """Days to look ahead, and length of each held-out window."""
    events: Names = ()
    """Events to count, such as purchase; where none is named, all are."""
    history_days: Annotated[int, Field(ge=21)] = 365
    """Newest days of the log that are looked at; memory grows with items times days."""
    windows: PositiveInt = 4
    """Held-out windows, before the one that is measured, that choose the settings."""
    interval: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """Probability with which the number lies between low and high."""
    utc_offset_hours: Annotated[float, Field(ge=-12.0, le=14.0)] = 0.0
    """What the shop's clock is ahead of UTC: where its days begin."""
    top_k: PositiveInt = 100
    """Items of each user over which the recommender's demand is spread."""


class BulkConfig(Section):
    """What a TOML file for these jobs holds; each reads its own section and the last two."""

    recommend: RecommendConfig = RecommendConfig()
    """Recommendations for all users."""
    audience: AudienceConfig = AudienceConfig()
    """The users who most likely want an item."""
    forecast: ForecastConfig = ForecastConfig()
    """Expected events of each item."""
    histories: HistoriesConfig = HistoriesConfig()
    """How histories are read."""
    storage: StorageConfig = StorageConfig()
    """How object stores are reached."""


def load_bulk(path: str | Path) -> BulkConfig:
    """The config of these jobs in the TOML file `path`; see `recsys.config.job.read_toml`."""
    return read_toml(path, BulkConfig)

"""The generated world."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from recsys.config.section import Section, Share


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
    drift: Share = 0.0
    """How much of what makes items and types popular is new each day; 0 keeps them as they are."""
    chinese_share: Share = 0.1
    """Share of items whose text is Chinese."""
    num_queries: NonNegativeInt = 1_000
    """Search queries, each with the items it fits."""
    seed: NonNegativeInt = 0
    """Seed of everything."""

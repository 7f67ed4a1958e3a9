"""Judged queries or clicks to the final ranker of search."""

from __future__ import annotations

from typing import Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from recsys.config.section import Section


class RankerConfig(Section):
    """What the final ranker learns from; see docs/ranking.md."""

    queries: str = ""
    """Parquet file with columns `query`, `item_id` and perhaps `relevance`, as the index's."""
    shown: str = ""
    """Parquet file with a row for each item shown: `request_id`, `query`, `item_id`, `position`
    from 1, and `clicked`, 0 or 1; perhaps `history`, a list of item ids."""
    added_column: str = ""
    """Number column of the items: when each was added, in Unix seconds."""
    cross_model: str = ""
    """Causal language model that reads query, history and titles, named as `model.backbone` is."""
    num_threads: PositiveInt = 1
    """Threads of LightGBM; they change nothing of what it learns."""
    seed: NonNegativeInt = 0
    """Seed of the trees."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.queries) == bool(self.shown):
            raise ValueError("give queries, judged ones, or shown, a log: one of them")
        return self

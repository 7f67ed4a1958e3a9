"""Index to report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from recsys.config.section import Section


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

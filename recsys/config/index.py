"""Checkpoint to index, and what completes a catalogue."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from recsys.config.section import Section, Share


class IndexConfig(Section):
    """Checkpoint and items to searchable items."""

    num_workers: PositiveInt = 2
    """Ray Data actors that encode items."""
    use_gpu: bool = False
    """Give each actor a GPU."""
    batch_size: PositiveInt = 256
    """Items a call of the encoder."""
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    """Number format of the stored vectors: `bf16` takes half the memory, `int8` a quarter."""
    kind: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """How items are found: `exact` scores all; with FAISS `ivf` looks into lists of near items and
    `hnsw` walks a graph of them; `auto` is `exact` up to `approximate_above` items, then `ivf`."""
    approximate_above: PositiveInt = 200_000
    """Items up to which scoring all of them is fast enough."""
    target_recall: Share = 0.95
    """Share of the first ten items that `ivf` and `hnsw` must find: the least effort that does is
    chosen on validation users, and stands in the manifest with the recall."""
    transitions: NonNegativeInt = 50
    """Items remembered as what users take after an item; 0 ranks by vectors alone."""
    alike: NonNegativeInt = 50
    """Items of similar text that join those; 0 leaves text out. The kept are `transitions` of both.
    It compares each item with each: 0.8 PFLOP for a million items and vectors of 384 numbers."""
    max_validation_rows: PositiveInt = 5_000
    """Validation rows that choose how much the remembered transitions count."""
    min_segment_users: PositiveInt = 100
    """Users that a value of a column of the users needs for popular items of its own: fewer say
    little, and would tell of somebody."""


class CompletionConfig(Section):
    """Missing categories and brands, filled from similar items."""

    min_precision: Share = 0.9
    """Fill only what is this likely to be right, as measured on known values that were masked."""

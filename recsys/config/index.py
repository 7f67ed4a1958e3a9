"""Checkpoint to index, and what completes a catalogue."""

from __future__ import annotations

from pydantic import PositiveInt

from recsys.config.section import Section, Share


class IndexConfig(Section):
    """Checkpoint and items to searchable items."""

    num_workers: PositiveInt = 2
    """Ray Data actors that encode items."""
    use_gpu: bool = False
    """Give each actor a GPU."""
    batch_size: PositiveInt = 256
    """Items a call of the encoder."""


class CompletionConfig(Section):
    """Missing categories and brands, filled from similar items."""

    min_precision: Share = 0.9
    """Fill only what is this likely to be right, as measured on known values that were masked."""

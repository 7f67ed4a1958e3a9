"""What is served."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveInt

from recsys.config.section import Section
from recsys.config.storage import StorageConfig


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

"""What is served."""

from __future__ import annotations

from typing import Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recsys.config.section import Section
from recsys.config.security import SecurityConfig
from recsys.config.storage import StorageConfig
from recsys.config.store import FeedbackConfig, ItemLogConfig, StoreConfig


class ServeArgs(Section):
    """What the Serve application is built from (`args` in a serve config)."""

    checkpoint: str = ""
    """Directory or URI of a checkpoint artifact."""
    index: str = ""
    """Directory or URI of an index artifact made from that checkpoint."""
    ranker: str = ""
    """Directory or URI of a final ranker of search fitted to that index; without one the search
    alone orders."""
    registry: str = ""
    """Directory or URI of a registry whose live model is followed, in place of those three."""
    registry_poll_s: PositiveFloat = 5.0
    """Seconds between two looks at the registry."""
    search: bool = True
    """Load the language model too, so that `/v1/search` answers; costs its size in memory."""
    max_batch_size: PositiveInt = 32
    """Requests answered in one forward pass."""
    max_batch_events: PositiveInt = 1_600
    """Events of all of them, padding included: long histories make smaller batches."""
    batch_wait_timeout_s: NonNegativeFloat = 0.002
    """How long a request waits for others to join its batch."""
    max_top_k: PositiveInt = 1_000
    """Largest `top_k` a request may ask for."""
    max_request_history: PositiveInt = 1_000
    """Longest history a request may hold, and the longest that is read from the store."""
    max_candidates: PositiveInt = 1_000
    """Most items that `/v1/rank` orders in one request."""
    max_batch_requests: PositiveInt = 100
    """Most requests in `/v1/batch`, and most events in `/v1/events`."""
    filter_seen: bool = True
    """Take items of the history out of recommendations."""
    cache_size: NonNegativeInt = 10_000
    """Answers kept for equal requests with equal histories; 0 keeps none."""
    cache_ttl_s: PositiveFloat = 60.0
    """Seconds for which an answer is kept."""
    user_states_mb: NonNegativeInt = 256
    """MiB of a replica's memory for what was read of histories: an unchanged one is not read again,
    and of a long one only what is new. 0 keeps nothing."""
    num_threads: PositiveInt = 1
    """Torch threads of one replica."""
    store: StoreConfig | None = None
    """Where histories are remembered; None remembers none."""
    feedback: FeedbackConfig | None = None
    """Where events and exposures are logged; None logs none."""
    items: ItemLogConfig | None = None
    """Where changes of items are kept; None has no routes that change items. Loads the language
    model as `search` does, once for both."""
    store_password_file: str | None = None
    """File with the password of Redis."""
    user_key_file: str | None = None
    """File with the key that makes pseudonyms of user ids in the store."""
    experiments: str | None = None
    """TOML file of A/B tests or its URI, read again when it changes; see docs/experiments.md."""
    trace_endpoint: str = ""
    """URL that spans go to by OTLP over HTTP, such as `http://collector:4318/v1/traces`; empty
    traces nothing. See docs/operations.md."""
    security: SecurityConfig = SecurityConfig()
    """Who may ask, how often, and how much."""
    storage: StorageConfig = StorageConfig()
    """How object stores are reached."""

    @model_validator(mode="after")
    def _names_one_model(self) -> Self:
        pair = bool(self.checkpoint), bool(self.index)
        if pair not in {(True, True), (False, False)} or pair[0] == bool(self.registry):
            raise ValueError("name 'checkpoint' and 'index', or a 'registry' in their place")
        if self.ranker and (self.registry or not self.search):
            raise ValueError(
                "name 'ranker' beside 'index', with search on; a registry's versions name their own"
            )
        return self
